# Runs the sections of .ci/run one after another and says how each went.
# shellcheck shell=bash disable=SC2154  # $repository, $python and $work are set by .ci/run and environments.sh

failed=()
summaries=()

run_section() { # run_section NAME: runs the function of that name, notes how it went
    local name=$1 status started=$SECONDS log=$work/$1.log
    printf '\n================ %s ================\n' "$name"
    set +e
    # A subshell of its own, outside any condition, so that `set -e` holds inside it.
    (set -Eeuo pipefail; "$name") 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    [[ $status == 0 ]] || failed+=("$name")
    printf -- '---------------- %s: %s, %d s\n' "$name" "$([[ $status == 0 ]] && echo ok || echo FAILED)" \
        $((SECONDS - started))
    # pytest's closing lines, once more in the summary
    while IFS= read -r line; do summaries+=("$name" "$line"); done < <(
        grep -aE '[0-9]+ (passed|failed|errors?).* in [0-9.]+s' "$log" || true
    )
    rm -rf "${work:?}/${name//_/-}"{,-tests}
}

run_sections() { # run_sections NAME...
    local name
    for name; do
        [[ " ${all[*]} " == *" $name "* ]] || { echo "no section is called $name; there are: ${all[*]}"; return 2; }
    done
    echo "kloaders $(git -C "$repository" rev-parse --short HEAD), $("$python" --version), $(nproc 2>/dev/null || echo '?') cores"
    if [[ -n $(git -C "$repository" status --porcelain) ]]; then
        echo "note: there are changes that are not committed; they are not tested here"
    fi
    for name; do run_section "$name"; done

    printf '\n================ summary ================\n'
    printf '%s\n' "${summaries[@]:-no tests ran}"
    if ((${#failed[@]})); then
        echo "FAILED: ${failed[*]} (after $((SECONDS / 60)) min)"
        return 1
    fi
}
