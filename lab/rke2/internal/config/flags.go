// Package config reads what an administrator writes for RKE2: config.yaml with
// its drop-ins, registries.yaml, and the command line.
package config

import (
	"sort"
	"strings"
)

// Kind is the type of a flag's value.
type Kind int

// The kinds of values that RKE2's flags take.
const (
	String Kind = iota
	List
	Bool
	Int
	Duration
)

func (k Kind) String() string {
	return [...]string{"a string", "a list of strings", "true or false", "a whole number", "a duration such as 5m"}[k]
}

// role says which of the two commands knows a flag.
type role int

const (
	server role = 1 << iota
	agent
	both = server | agent
)

type flag struct {
	kind Kind
	role role
}

// flags lists every flag of `rke2 server` and `rke2 agent`, which are also the
// keys of config.yaml.
//
// Source: rancher/rke2 pkg/cli/cmds/{server,agent,root}.go (v1.36), which name
// the flags kept from K3s and add their own; the types are K3s' (pkg/cli/cmds).
var flags = map[string]flag{
	"config": {String, both}, "debug": {Bool, both}, "v": {Int, both}, "vmodule": {String, both},
	"log": {String, both}, "alsologtostderr": {Bool, both}, "data-dir": {String, both},
	"bind-address": {String, both}, "enable-pprof": {Bool, both},

	"token": {String, both}, "token-file": {String, both}, "server": {String, both},
	"agent-token": {String, server}, "agent-token-file": {String, server},
	"cluster-reset": {Bool, server}, "cluster-reset-restore-path": {String, server},

	"advertise-address": {String, server}, "tls-san": {List, server}, "tls-san-security": {Bool, server},
	"cluster-cidr": {List, server}, "service-cidr": {List, server}, "cluster-dns": {List, server},
	"cluster-domain": {String, server}, "service-node-port-range": {String, server},
	"egress-selector-mode": {String, server}, "servicelb-namespace": {String, server},
	"cni": {List, server}, "ingress-controller": {List, server}, "enable-servicelb": {Bool, server}, "prime": {Bool, server},

	"write-kubeconfig": {String, server}, "write-kubeconfig-mode": {String, server},
	"write-kubeconfig-group": {String, server}, "write-kubeconfig-name": {String, server},

	"kube-apiserver-arg": {List, server}, "etcd-arg": {List, server}, "kube-scheduler-arg": {List, server},
	"kube-controller-manager-arg": {List, server}, "kube-cloud-controller-manager-arg": {List, server},
	"kubelet-arg": {List, both}, "kube-proxy-arg": {List, both}, "helm-controller-arg": {List, server},

	"datastore-endpoint": {String, server}, "datastore-cafile": {String, server},
	"datastore-certfile": {String, server}, "datastore-keyfile": {String, server},

	"disable": {List, server}, "disable-agent": {Bool, server}, "disable-scheduler": {Bool, server},
	"disable-cloud-controller": {Bool, server}, "disable-kube-proxy": {Bool, server},
	"disable-apiserver": {Bool, server}, "disable-controller-manager": {Bool, server}, "disable-etcd": {Bool, server},

	"etcd-disable-snapshots": {Bool, server}, "etcd-snapshot-schedule-cron": {String, server},
	"etcd-snapshot-reconcile-interval": {Duration, server}, "etcd-snapshot-retention": {Int, server},
	"etcd-snapshot-dir": {String, server}, "etcd-snapshot-name": {String, server},
	"etcd-snapshot-compress": {Bool, server}, "etcd-expose-metrics": {Bool, server},
	"etcd-s3": {Bool, server}, "etcd-s3-access-key": {String, server}, "etcd-s3-bucket": {String, server},
	"etcd-s3-bucket-lookup-type": {String, server}, "etcd-s3-config-secret": {String, server},
	"etcd-s3-endpoint": {String, server}, "etcd-s3-endpoint-ca": {String, server}, "etcd-s3-folder": {String, server},
	"etcd-s3-insecure": {Bool, server}, "etcd-s3-proxy": {String, server}, "etcd-s3-region": {String, server},
	"etcd-s3-secret-key": {String, server}, "etcd-s3-session-token": {String, server},
	"etcd-s3-skip-ssl-verify": {Bool, server}, "etcd-s3-timeout": {Duration, server}, "etcd-s3-retention": {Int, server},

	"node-name": {String, both}, "with-node-id": {Bool, both}, "node-label": {List, both}, "node-taint": {List, both},
	"image-credential-provider-bin-dir": {String, both}, "image-credential-provider-config": {String, both},
	"container-runtime-endpoint": {String, both}, "disable-default-registry-endpoint": {Bool, both},
	"nonroot-devices": {Bool, both}, "embedded-registry": {Bool, server}, "supervisor-metrics": {Bool, server},
	"default-runtime": {String, both}, "private-registry": {String, both},
	// Agents accept system-default-registry as a deprecated flag without effect.
	"system-default-registry": {String, both}, "airgap-extra-registry": {List, both},
	"node-ip": {List, both}, "node-external-ip": {List, both},
	"node-internal-dns": {List, both}, "node-external-dns": {List, both}, "resolv-conf": {String, both},
	"secrets-encryption": {Bool, server}, "secrets-encryption-provider": {String, server},
	"protect-kernel-defaults": {Bool, both}, "snapshotter": {String, both}, "selinux": {Bool, both},
	"lb-server-port": {Int, both}, "helm-job-image": {String, server},

	"kube-apiserver-image": {String, both}, "kube-controller-manager-image": {String, both},
	"cloud-controller-manager-image": {String, both}, "kube-proxy-image": {String, both},
	"kube-scheduler-image": {String, both}, "pause-image": {String, both}, "runtime-image": {String, both},
	"etcd-image": {String, both}, "kubelet-path": {String, both},
	"cloud-provider-name": {String, both}, "cloud-provider-config": {String, both},
	"node-name-from-cloud-provider-metadata": {Bool, both}, "profile": {String, both},
	"audit-policy-file": {String, both}, "pod-security-admission-config-file": {String, both},
	"control-plane-resource-requests": {List, both}, "control-plane-resource-limits": {List, both},
	"control-plane-probe-configuration": {List, both},
	"kube-apiserver-extra-mount":        {List, both}, "kube-scheduler-extra-mount": {List, both},
	"kube-controller-manager-extra-mount": {List, both}, "kube-proxy-extra-mount": {List, both},
	"etcd-extra-mount": {List, both}, "cloud-controller-manager-extra-mount": {List, both},
	"kube-apiserver-extra-env": {List, both}, "kube-scheduler-extra-env": {List, both},
	"kube-controller-manager-extra-env": {List, both}, "kube-proxy-extra-env": {List, both},
	"etcd-extra-env": {List, both}, "cloud-controller-manager-extra-env": {List, both},
}

// short maps the one-letter spellings to the flags they stand for.
var short = map[string]string{"c": "config", "d": "data-dir", "t": "token", "s": "server", "i": "node-ip", "o": "write-kubeconfig"}

// environment maps the environment variables that set a flag when neither the
// command line nor config.yaml does.
var environment = map[string]string{
	"RKE2_TOKEN": "token", "RKE2_TOKEN_FILE": "token-file", "RKE2_URL": "server",
	"RKE2_AGENT_TOKEN": "agent-token", "RKE2_AGENT_TOKEN_FILE": "agent-token-file",
	"RKE2_NODE_NAME": "node-name", "RKE2_CNI": "cni", "RKE2_INGRESS_CONTROLLER": "ingress-controller",
	"RKE2_KUBECONFIG_OUTPUT": "write-kubeconfig", "RKE2_KUBECONFIG_MODE": "write-kubeconfig-mode",
	"RKE2_KUBECONFIG_GROUP": "write-kubeconfig-group", "RKE2_CIS_PROFILE": "profile",
	"RKE2_SELINUX": "selinux", "RKE2_RESOLV_CONF": "resolv-conf", "RKE2_LB_SERVER_PORT": "lb-server-port",
	"RKE2_SYSTEM_DEFAULT_REGISTRY": "system-default-registry", "RKE2_AUDIT_POLICY_FILE": "audit-policy-file",
	"RKE2_POD_SECURITY_ADMISSION_CONFIG_FILE": "pod-security-admission-config-file",
}

// nearest returns the known flag most like name, or "" when none is close.
func nearest(name string) string {
	best, at := "", 4
	names := make([]string, 0, len(flags))
	for n := range flags {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if d := distance(strings.ReplaceAll(name, "_", "-"), n); d < at {
			best, at = n, d
		}
	}
	return best
}

// distance is the number of single-letter edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			up := row[j]
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j]+1, row[j-1]+1, diagonal+cost)
			diagonal = up
		}
	}
	return row[len(b)]
}
