#!/usr/bin/env bash
# Runs the tests under tools that watch what memory is used for. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'END'
Usage: tests/sanitizers.sh [address|thread|valgrind]...

  address   AddressSanitizer in the tests, their clients and the store, and LeakSanitizer with it
  thread    ThreadSanitizer in the same
  valgrind  the store under valgrind's memcheck; the tests and their clients as they are

All three unless told. It ends with status 1 where something was found.
What a run found stays in target/sanitizers.
END
}

tools=()
for argument in "$@"; do
    case $argument in
    address | thread | valgrind) tools+=("$argument") ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done
if [[ ${#tools[@]} -eq 0 ]]; then
    tools=(address thread valgrind)
fi

# Where this is given to cargo, build scripts and procedural macros, which the compiler loads, are
# built without a sanitizer.
target=x86_64-unknown-linux-gnu

# What is tested: arguments for cargo.
suites=(
    "-p plasma-core --lib"
    "-p plasma-store --lib"
    "-p plasma-typed --lib"
    "-p tests --test end_to_end"
    "-p tests --test original_program"
    "-p tests --test shared"
    "-p tests --test deaths"
    "-p tests --test hostile"
    "-p tests --test lying_store"
    "-p tests --test corpora"
    "-p tests --test operating"
    "-p tests --test traces"
    "-p tests --test bad_use"
    "-p tests --test typed"
    "-p tests --test derive"
    "-p tests --test soak"
)

# What is left out: tools, suite, test or all of them, reason. Of the suites that are not even listed,
# `memory`, `compile_time` and `ui` are of the memory that a process takes, and of the compiler, and
# `interop` is of programs that have no sanitizer.
left_out=(
    "address thread valgrind|hostile|descriptors::descriptors_that_do_not_all_find_a_place_are_not_leaked|it counts up to a limit on descriptors, of which the tool takes some"
    "thread|plasma-store|*|each test is of one thread"
    "thread|plasma-typed|*|each test is of one thread"
    "thread|derive|*|each test is of one thread"
    "valgrind|plasma-core|*|there is no store"
    "valgrind|plasma-store|*|there is no store"
    "valgrind|plasma-typed|*|there is no store"
    "valgrind|derive|*|there is no store"
    "valgrind|end_to_end|an_idle_store_uses_no_processor_time|it measures processor time, which valgrind takes"
    "valgrind|hostile|descriptors::a_soft_limit_on_descriptors_does_not_limit_the_clients|valgrind makes a hard limit of the soft one"
    "valgrind|hostile|memory::closing_what_a_client_sent_keeps_nobody_waiting|valgrind lets no other thread run while one closes"
    "valgrind|deaths|clients::listing::by_socket::killed_at_each_step|it makes lists that fill a socket over and over, which takes a quarter of an hour"
    "valgrind|deaths|clients::listing::in_memory::killed_at_each_step|it makes lists that fill a socket over and over, which takes a quarter of an hour"
    "valgrind|lying_store|*|the store is a part of the test"
    "valgrind|corpora|*|the store is a part of the test"
)

need() {
    local what=$1 remedy=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        echo "sanitizers.sh: $what is missing: $remedy" >&2
        exit 2
    fi
}

for tool in "${tools[@]}"; do
    case $tool in
    address | thread)
        if [[ $(uname -sm) != "Linux x86_64" ]]; then
            echo "sanitizers.sh: address and thread are for Linux on x86-64 here" >&2
            exit 2
        fi
        need "a nightly toolchain" "rustup toolchain install nightly --profile minimal" \
            cargo +nightly --version
        # Without it there are no names in reports, and no suppression is found.
        need "llvm-symbolizer" "apt-get install llvm" llvm-symbolizer --version
        need "nm" "apt-get install binutils" nm --version
        need "a C compiler" "apt-get install gcc" cc --version
        ;;
    valgrind)
        need "valgrind" "apt-get install valgrind" valgrind --version
        ;;
    esac
done

start=$SECONDS
section_start=
# A line for each section, and how long the one before it took.
section() {
    if [[ -n $section_start ]]; then
        echo "--- took $((SECONDS - section_start)) s"
    fi
    section_start=$SECONDS
    if [[ $# -gt 0 ]]; then
        echo
        echo "=== $*"
    fi
}

found=()
# What valgrind says of each store, one a file.
logs="$PWD/target/sanitizers/valgrind-logs"
# The reports that are there, one a line.
reports() {
    find "$findings" -type f -size +0 | sort
}

# Runs the suites with one tool, with cargo's arguments for it.
run_suites() {
    local tool=$1 before
    shift
    for suite in "${suites[@]}"; do
        local name=${suite##* } skips=()
        if [[ $name == --lib ]]; then
            name=${suite#-p }
            name=${name% --lib}
        fi
        section "$tool: $name"
        for entry in "${left_out[@]}"; do
            IFS='|' read -r tools_of_entry suite_of_entry test reason <<<"$entry"
            if [[ " $tools_of_entry " == *" $tool "* && $suite_of_entry == "$name" ]]; then
                if [[ $test == '*' ]]; then
                    echo "left out: all of it: $reason"
                    continue 2
                fi
                echo "left out: $test: $reason"
                skips+=(--skip "$test")
            fi
        done
        before=$(reports)
        # shellcheck disable=SC2086 # the arguments are words
        if ! cargo "$@" $suite --quiet -- --exact "${skips[@]}"; then
            found+=("$tool: $name: tests failed")
        fi
        if [[ $tool == valgrind ]]; then
            collect_from_valgrind
        fi
        if [[ $(reports) != "$before" ]]; then
            found+=("$tool: $name: see below")
            comm -13 <(echo "$before") <(reports) | while read -r report; do
                echo "--- $report"
                cat "$report"
            done
        fi
    done
}

run_sanitizer() {
    local tool=$1 symbol=$2 folder=$3 flags=$4
    local server="$PWD/$folder/$target/debug/plasma-store-server"

    section "$tool: what is tested is built"
    RUSTFLAGS=$flags cargo +nightly build --quiet -p plasma-store --bin plasma-store-server \
        --target "$target" --target-dir "$folder"
    # Otherwise the tests would find nothing in it, and pass.
    if ! grep --quiet " $symbol\$" <(nm "$server"); then
        echo "sanitizers.sh: $server has no $symbol: it was built without the sanitizer" >&2
        exit 2
    fi
    RUSTFLAGS=$flags PLASMA_TEST_WATCHED_SERVER=$server \
        run_suites "$tool" +nightly test --target "$target" --target-dir "$folder"
}

run_valgrind() {
    local server="$PWD/target/debug/plasma-store-server"
    local wrapper=target/sanitizers/store-under-valgrind

    section "valgrind: what is tested is built"
    cargo build --quiet -p plasma-store --bin plasma-store-server
    rm -rf "$logs"
    mkdir -p "$logs"
    chmod 1777 "$logs"
    # What only the middle of is pointed at counts as possibly lost: so does all that an `Arc` in a
    # thread's own storage holds, which is not.
    # A debugger is told where the store is by files, which a store that is killed would leave behind.
    cat >"$wrapper" <<END
#!/bin/sh
exec valgrind --quiet --vgdb=no --log-file="$logs/%p" --error-exitcode=99 --track-fds=yes \\
    --leak-check=full --show-leak-kinds=definite,indirect \\
    --errors-for-leak-kinds=definite,indirect "$server" "\$@"
END
    chmod +x "$wrapper"
    PLASMA_TEST_WATCHED_SERVER="$PWD/$wrapper" run_suites valgrind test
}

# Takes what valgrind says, and leaves out that descriptors are open which the store did not open.
collect_from_valgrind() {
    local log said
    shopt -s nullglob
    for log in "$logs"/*; do
        said=$(awk '
            { sub(/^==[0-9]+== ?/, "") }
            /^FILE DESCRIPTORS/ || /^ *$/ { next }
            /^Open / { open = $0; next }
            open != "" { if (!/<inherited from parent>/) print open "\n" $0; open = ""; next }
            { print }
        ' "$log")
        if [[ -n $said ]]; then
            echo "$said" >"$findings/report.${log##*/}"
        fi
        rm "$log"
    done
}

# Compiles what tells ThreadSanitizer of the standard library's locks and of the ends of its scoped
# threads; sets `locks` to what the compiler has to be told of it.
locks=
tell_of_locks() {
    local object="$PWD/target/sanitizers/thread-sanitizer.o" library symbols symbol
    local defines=()
    library=$(rustc +nightly --print target-libdir --target "$target")
    symbols=$(nm --dynamic --defined-only "$library"/libstd-*.so | awk '{ print $3 }')
    while read -r name path; do
        symbol=$(grep "3std$path\$" <<<"$symbols") || {
            echo "sanitizers.sh: this nightly's standard library has no $path" >&2
            exit 2
        }
        defines+=("-DREAL_$name=__real_$symbol" "-DWRAP_$name=__wrap_$symbol")
        locks+=" -Clink-arg=-Wl,--wrap=$symbol"
    done <<'END'
LOCK 3sys4sync5mutex5futexNtB2_5Mutex14lock_contended
WAIT 3sys4sync7condvar5futexNtB2_7Condvar4wait
WAIT_TIMEOUT 3sys4sync7condvar5futexNtB2_7Condvar12wait_timeout
END 6thread6scopedNtB2_9ScopeData29decrement_num_running_threads
END
    cc -O1 -Wall -Werror -c "${defines[@]}" tests/thread-sanitizer.c -o "$object"
    locks+=" -Clink-arg=$object"
}

for tool in "${tools[@]}"; do
    findings="$PWD/target/sanitizers/$tool"
    rm -rf "$findings"
    mkdir -p "$findings"
    # Some tests start stores as other users.
    chmod 1777 "$findings"
    case $tool in
    address)
        export ASAN_OPTIONS="log_path=$findings/report:detect_leaks=1"
        export LSAN_OPTIONS="print_suppressions=0"
        run_sanitizer address __asan_init target/asan "-Zsanitizer=address"
        ;;
    thread)
        export TSAN_OPTIONS="log_path=$findings/report:print_suppressions=0"
        TSAN_OPTIONS+=":suppressions=$PWD/tests/thread-sanitizer.supp"
        tell_of_locks
        # The standard library comes without the sanitizer; the compiler wants to hear that we know.
        run_sanitizer thread __tsan_init target/tsan \
            "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer$locks"
        ;;
    valgrind)
        run_valgrind
        ;;
    esac
done

section
echo
if [[ ${#found[@]} -gt 0 ]]; then
    echo "Found in $((SECONDS - start)) s; the reports are in target/sanitizers:"
    printf '  %s\n' "${found[@]}"
    exit 1
fi
echo "Nothing found in $((SECONDS - start)) s."
