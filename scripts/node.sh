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
  set_labels
  set_taints
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

# The keys set from here are remembered in an annotation, so that one taken out of the settings goes from the node too.
set_labels() {
  local label key known wanted=() arguments=()
  list labels
  for label in ${LIST[@]+"${LIST[@]}"}; do
    key=${label%%=*}
    wanted+=("$key")
    [[ $(node_field "{.metadata.labels.${key//./\\.}}") == "${label#*=}" ]] || arguments+=("$label")
  done
  known=$(node_field "{.metadata.annotations.${LABELS_MARK//./\\.}}")
  for key in ${known//,/ }; do
    [[ " ${wanted[*]-} " == *" $key "* ]] || arguments+=("$key-")
  done
  if ((${#arguments[@]} == 0)); then
    unchanged "labels of ${V[node_name]}"
  else
    kube label node "${V[node_name]}" --overwrite "${arguments[@]}" >/dev/null
    changed "labels of ${V[node_name]}: ${arguments[*]}"
  fi
  remember "$LABELS_MARK" "$known" "$(IFS=, && printf '%s' "${wanted[*]-}")"
}

set_taints() {
  local taint present known wanted=() arguments=()
  list taints
  present=$(node_field '{range .spec.taints[*]}{.key}={.value}:{.effect} {end}')
  for taint in ${LIST[@]+"${LIST[@]}"}; do
    wanted+=("${taint%%=*}:${taint##*:}")
    [[ " $present " == *" $taint "* ]] || arguments+=("$taint")
  done
  known=$(node_field "{.metadata.annotations.${TAINTS_MARK//./\\.}}")
  for taint in ${known//,/ }; do
    [[ " ${wanted[*]-} " == *" $taint "* ]] || arguments+=("$taint-")
  done
  if ((${#arguments[@]} == 0)); then
    unchanged "taints of ${V[node_name]}"
  else
    kube taint node "${V[node_name]}" --overwrite "${arguments[@]}" >/dev/null
    changed "taints of ${V[node_name]}: ${arguments[*]}"
  fi
  remember "$TAINTS_MARK" "$known" "$(IFS=, && printf '%s' "${wanted[*]-}")"
}

remember() {
  [[ $2 == "$3" ]] || kube annotate node "${V[node_name]}" --overwrite "$1=$3" >/dev/null
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
