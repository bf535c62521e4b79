#!/bin/sh
# Installs this checkout and the extras that are named into .venv, from the tested set in constraints.txt.
#
#   tools/install.sh export,cpu,audio                      with the newest of Python 3.11 to 3.14 on PATH
#   PYTHON=python3.12 tools/install.sh dev                 with another one
set -eu
unset CDPATH
cd "$(dirname "$0")/.."
extras=$1
environment=${VENV:-.venv}
tested="3.14 3.13 3.12 3.11"

fail() {
  echo "$1" >&2
  exit 1
}

get_python='apt install python3 python3-venv make git (Debian 12, Ubuntu 24.04 or later), brew install python@3.13, or uv python install 3.13 && make PYTHON="$(uv python find 3.13)"'

# Prints the version of an interpreter, 3.13 for example; fails where it does not run: a shim of pyenv may not.
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null
}

is_too_old() {
  case $1 in 2.* | 3.[0-9] | 3.10) return 0 ;; esac
  return 1
}

choose_python() {
  if [ -n "${PYTHON:-}" ]; then
    version=$(version_of "$PYTHON") || fail "PYTHON=$PYTHON does not run; give the path of a Python 3.11 or later"
    ! is_too_old "$version" || fail "PYTHON=$PYTHON is Python $version, and 3.11 is the oldest that works: $get_python"
    echo "$PYTHON"
    return
  fi
  for wanted in $tested; do
    for candidate in "python$wanted" python3 python; do
      if [ "$(version_of "$candidate")" = "$wanted" ]; then
        echo "$candidate"
        return
      fi
    done
  done
  found=$(version_of python3) && found="python3 on PATH is $found" || found="there is no python3 on PATH"
  fail "speech-export needs Python 3.11 to 3.14, and $found: $get_python"
}

# torch and ONNX Runtime come as wheels only, and for these.
check_platform() {
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64" | "Linux aarch64") [ "$("$1" -c 'import platform; print(platform.libc_ver()[0])')" = glibc ] && return ;;
    "Darwin arm64") return ;;
  esac
  fail "torch and ONNX Runtime have no build for $(uname -sm) with this C library: take a Linux with glibc (Debian, Ubuntu, \
Fedora) on x86-64 or arm64, or macOS on Apple silicon"
}

announce() {
  case "$(uname -s) $1" in
    "Linux export,cpu,audio") size="2.8 GB to download, 5.1 GB on disk; with the CPU build of torch 0.3 and 1.3 GB, see docs/install.md" ;;
    "Linux dev") size="up to 3.0 GB to download, 5.5 GB on disk; with the CPU build of torch 0.4 and 1.7 GB, see docs/install.md" ;;
    *" bench") size="0.1 GB more to download" ;;
    *" docs") size="45 MB to download" ;;
    *" lock") size="60 MB to download" ;;
    *) size="about 0.5 GB to download, 1.5 GB on disk" ;;
  esac
  echo "Installing speech-export[$1] into $environment with Python $2: $size."
}

if [ ! -x "$environment/bin/python" ] && [ ! -L "$environment/bin/python" ]; then
  python=$(choose_python)
  "$python" -c 'import ensurepip, venv' 2> /dev/null || fail "$python has no ensurepip, so it cannot make a virtual \
environment: apt install python$(version_of "$python")-venv"
  [ "$extras" = lock ] || check_platform "$python"
  "$python" -m venv "$environment"
fi
version=$(version_of "$environment/bin/python") \
  || fail "the Python of $environment does not run any more; remove it with make clean, and try again"
! is_too_old "$version" || fail "$environment has Python $version, and 3.11 is the oldest that works; make clean, and try again"
[ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$version" ] \
  || fail "$environment has Python $version, and PYTHON=$PYTHON is another or does not run; make clean, and try again"
announce "$extras" "$version"
# There is no pip yet where making the environment was interrupted, or uv made it.
"$environment/bin/python" -m pip --version > /dev/null 2>&1 || "$environment/bin/python" -m ensurepip > /dev/null
"$environment/bin/python" -m pip install --no-user --disable-pip-version-check -c constraints.txt -e ".[$extras]"
