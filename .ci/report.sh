# Runs the sections of .ci/run one after another and reports the result of each.
# shellcheck shell=bash disable=SC2154  # $repository, $python and $work are set by .ci/run and environments.sh

failed=()
summaries=()

run_section() { # run_section NAME: runs the function of that name and records its result
    local name=$1 status started=$SECONDS log=$work/$1.log
    printf '\n================ %s ================\n' "$name"
    set +e
    # A subshell outside any condition, so that `set -e` works inside it.
    (set -Eeuo pipefail; "$name") 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    [[ $status == 0 ]] || failed+=("$name")
    printf -- '---------------- %s: %s, %d s\n' "$name" "$([[ $status == 0 ]] && echo ok || echo FAILED)" \
        $((SECONDS - started))
    # repeat pytest's last lines in the summary
    while IFS= read -r line; do summaries+=("$name" "$line"); done < <(
        grep -aE '[0-9]+ (passed|failed|errors?).* in [0-9.]+s' "$log" || true
    )
    rm -rf "${work:?}/${name//_/-}"{,-tests}
}

run_sections() { # run_sections NAME...
    local name
    for name; do
        [[ " ${all[*]} " == *" $name "* ]] || { echo "there is no section $name; the sections are: ${all[*]}"; return 2; }
    done
    echo "kloaders $(git -C "$repository" rev-parse --short HEAD), $("$python" --version), $(nproc 2>/dev/null || echo '?') cores"
    if [[ -n $(git -C "$repository" status --porcelain) ]]; then
        echo "note: uncommitted changes are not tested"
    fi
    for name; do run_section "$name"; done

    printf '\n================ summary ================\n'
    printf '%s\n' "${summaries[@]:-no tests ran}"
    if ((${#failed[@]})); then
        echo "FAILED: ${failed[*]} (after $((SECONDS / 60)) min)"
        return 1
    fi
}
