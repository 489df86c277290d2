# shellcheck shell=bash
# Runs on a cluster's first server, about one node. As `node`: waits until it is Ready and gives it its labels and
# taints (RKE2 itself only sets them when a node registers). As `node-remove`: takes it out of the cluster.

KUBECTL=/var/lib/rancher/rke2/bin/kubectl
LABELS_MARK=opstella.io/labels
TAINTS_MARK=opstella.io/taints

main() {
  payload_read
  require_text node_name timeout_seconds
  require labels taints
  number timeout_seconds
  must_be_root
  if [[ $PHASE == node-remove ]]; then
    remove_node
    return
  fi
  wait_until "${V[timeout_seconds]}" "node ${V[node_name]} to be Ready" node_ready || explain_not_ready
  unchanged "node ${V[node_name]} is Ready"
  set_labels_and_taints
}

kube() { "$KUBECTL" --kubeconfig /etc/rancher/rke2/rke2.yaml --request-timeout=20s "$@"; }

node_field() { kube get node "${V[node_name]}" --ignore-not-found -o "jsonpath=$1" 2>/dev/null; }

node_ready() { [[ $(node_field '{.status.conditions[?(@.type=="Ready")].status}') == True ]]; }

explain_not_ready() {
  local reason
  reason=$(node_field '{.status.conditions[?(@.type=="Ready")].message}' || true)
  if [[ -z $(kube get node "${V[node_name]}" --ignore-not-found -o name 2>/dev/null) ]]; then
    reason="it never registered with this cluster"
  fi
  kube get events --all-namespaces --field-selector "involvedObject.name=${V[node_name]}" --sort-by=.lastTimestamp 2>/dev/null | tail -n 10 >&2 || true
  die "node ${V[node_name]} is not Ready after ${V[timeout_seconds]} s: ${reason:-the API server did not say why}" \
    "read the journal of rke2-agent or rke2-server on that machine, and check that it reaches the load balancer on ports 6443 and 9345"
}

# Labels, taints, and which of them were set from here (in annotations, so that one taken out of the settings goes from the
# node too) go in one request: the node has all of them, or what it had. The request names the version of the node that it
# was made from, and is made again when somebody else changed the node meanwhile.
set_labels_and_taints() {
  local try
  stage
  for try in 1 2 3 4 5; do
    make_patch
    if ((${#CHANGES[@]} == 0)); then
      unchanged "labels and taints of ${V[node_name]}"
      return
    fi
    if kube patch node "${V[node_name]}" --type=merge --patch "$PATCH" >/dev/null 2>"$STAGE/patch"; then
      changed "labels and taints of ${V[node_name]}: ${CHANGES[*]}"
      return
    fi
    grep -q 'the object has been modified' "$STAGE/patch" || break
    sleep "0.$try"
  done
  die "the API server refuses the labels and taints of ${V[node_name]}, which has what it had: $(said "$STAGE/patch" 'error|invalid|forbidden|modified')" \
    "correct labels, nodeLabels or taints in opstella:clusters, or run again if the API server did not answer"
}

# make_patch: sets PATCH, and CHANGES to what is in it for people.
make_patch() {
  local label taint key known version present labels=() annotations=() taints=() wanted=() set=() kept=()
  CHANGES=()
  version=$(node_field '{.metadata.resourceVersion}')

  list labels
  for label in ${LIST[@]+"${LIST[@]}"}; do
    key=${label%%=*}
    wanted+=("$key")
    [[ $(node_field "{.metadata.labels.${key//./\\.}}") == "${label#*=}" ]] || labels+=("$(json_string "$key"):$(json_string "${label#*=}")") CHANGES+=("$label")
  done
  known=$(node_field "{.metadata.annotations.${LABELS_MARK//./\\.}}")
  for key in ${known//,/ }; do
    [[ " ${wanted[*]-} " == *" $key "* ]] || labels+=("$(json_string "$key"):null") CHANGES+=("$key-")
  done
  remember "$LABELS_MARK" "$known" ${wanted[@]+"${wanted[@]}"}

  wanted=()
  list taints
  present=$(node_field '{range .spec.taints[*]}{.key}={.value}:{.effect} {end}')
  for taint in ${LIST[@]+"${LIST[@]}"}; do
    wanted+=("${taint%%=*}:${taint##*:}")
    [[ " $present " == *" $taint "* ]] || set+=("$taint")
  done
  known=$(node_field "{.metadata.annotations.${TAINTS_MARK//./\\.}}")
  for taint in $present; do
    key=${taint%%=*}:${taint##*:}
    if [[ " ${wanted[*]-} " == *" $key "* ]]; then continue; fi
    if [[ ,$known, == *",$key,"* ]]; then set+=("$key-"); else kept+=("$taint"); fi
  done
  remember "$TAINTS_MARK" "$known" ${wanted[@]+"${wanted[@]}"}
  CHANGES+=(${set[@]+"${set[@]}"})
  for taint in ${kept[@]+"${kept[@]}"} ${LIST[@]+"${LIST[@]}"}; do taints+=("$(taint_object "$taint")"); done

  PATCH="{\"metadata\":{\"resourceVersion\":$(json_string "$version"),\"labels\":{$(joined ${labels[@]+"${labels[@]}"})},\"annotations\":{$(joined ${annotations[@]+"${annotations[@]}"})}}"
  ((${#set[@]} == 0)) || PATCH+=",\"spec\":{\"taints\":[$(joined ${taints[@]+"${taints[@]}"})]}"
  PATCH+="}"
}

joined() { (IFS=, && printf '%s' "$*"); }

# remember MARK KNOWN KEY...: into the annotations of the caller.
remember() {
  local mark=$1 known=$2 now
  shift 2
  now=$(joined "$@")
  [[ $known == "$now" ]] || annotations+=("$(json_string "$mark"):$(json_string "$now")") CHANGES+=("$mark")
}

# taint_object KEY=VALUE:EFFECT
taint_object() {
  local value=${1#*=}
  value=${value%:*}
  printf '{"key":%s,' "$(json_string "${1%%=*}")"
  [[ -z $value ]] || printf '"value":%s,' "$(json_string "$value")"
  printf '"effect":%s}' "$(json_string "${1##*:}")"
}

# Its pods move first, within a bound; the node password goes with the node, or a machine of that name could not return.
remove_node() {
  if [[ ! -x $KUBECTL ]] || ! kube get --raw /readyz >/dev/null 2>&1; then
    warning "the API server of this cluster does not answer; the node ${V[node_name]} stays registered"
    return 0
  fi
  if [[ -z $(kube get node "${V[node_name]}" --ignore-not-found -o name) ]]; then
    unchanged "node ${V[node_name]} is gone"
  elif [[ $(kube get nodes -o name | wc -l) == 1 ]]; then
    unchanged "node ${V[node_name]} is the last one; the cluster goes with it"
    return 0
  else
    kube cordon "${V[node_name]}" >/dev/null
    "$KUBECTL" --kubeconfig /etc/rancher/rke2/rke2.yaml drain "${V[node_name]}" --ignore-daemonsets --delete-emptydir-data --timeout=120s >/dev/null 2>&1 ||
      warning "not every pod left ${V[node_name]} within 120 s"
    kube delete node "${V[node_name]}" --wait=true --timeout=60s >/dev/null
    changed "node ${V[node_name]} removed"
  fi
  kube --namespace kube-system delete secret "${V[node_name]}.node-password.rke2" --ignore-not-found >/dev/null
}
