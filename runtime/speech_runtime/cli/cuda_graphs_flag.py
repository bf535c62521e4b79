"""`--cuda-graphs` of the commands that run a bundle."""

import click

cuda_graphs_flag = click.option(
    "--cuda-graphs",
    type=int,
    metavar="SIZES",
    help="Record the steps of so many sizes of batch and audio on a GPU; for bundles with a static cache. [default: 0]",
)
