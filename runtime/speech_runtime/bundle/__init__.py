"""The bundle: a directory of graphs, configuration files and a manifest. The contract between exporter and runtime."""
