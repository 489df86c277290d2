package settings

import (
	"slices"
	"strings"
	"testing"

	"opstella.invalid/lab/rke2/internal/config"
)

func base() config.Values {
	return config.Values{"private-registry": {"/nonexistent"}, "node-name": {"node-1"}, "cni": {"calico"}}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, command string
		values        config.Values
		want          string
	}{
		{"agent without server", "agent", config.Values{"token": {"x"}}, "--server is required"},
		{"agent without token", "agent", config.Values{"server": {"https://a:9345"}}, "--token is required"},
		{"joining server without token", "server", config.Values{"server": {"https://a:9345"}}, "--token is required"},
		{"plain http", "agent", config.Values{"server": {"http://a:9345"}, "token": {"x"}}, "only https://"},
		{"broken token", "agent", config.Values{"server": {"https://a:9345"}, "token": {"K10x::server:y"}}, "CA hash length"},
		{"overlap", "server", config.Values{"cluster-cidr": {"10.0.0.0/8"}, "service-cidr": {"10.43.0.0/16"}}, "overlap"},
		{"no network", "server", config.Values{"cluster-cidr": {"10.0.0.0"}}, "is no network"},
		{"DNS outside", "server", config.Values{"cluster-dns": {"10.42.0.10"}}, "no address of service-cidr"},
		{"unquoted mode", "server", config.Values{"write-kubeconfig-mode": {"384"}}, "quote it in YAML"},
		{"CNI", "server", config.Values{"cni": {"weave"}}, "Invalid value weave for --cni flag"},
		{"CNI twice", "server", config.Values{"cni": {"calico", "cilium"}}, "--cni flag"},
		{"ingress", "server", config.Values{"ingress-controller": {"haproxy"}}, "--ingress-controller"},
		{"cron", "server", config.Values{"etcd-snapshot-schedule-cron": {"daily"}}, "etcd-snapshot-schedule-cron"},
		{"reserved label", "server", config.Values{"node-label": {"node-role.kubernetes.io/worker=true"}}, "the kubelet does not start with it"},
		{"label form", "server", config.Values{"node-label": {"worker"}}, "key=value"},
		{"taint form", "server", config.Values{"node-taint": {"a=b"}}, "key=value:NoSchedule"},
		{"taint effect", "server", config.Values{"node-taint": {"a=b:Never"}}, "key=value:NoSchedule"},
		{"foreign address", "server", config.Values{"node-ip": {"203.0.113.9"}}, "not an address of this host"},
		{"node name", "server", config.Values{"node-name": {"Node_1"}}, "no valid node name"},
		{"profile", "server", config.Values{"profile": {"cis-1.23"}}, "--profile"},
		{"registry", "server", config.Values{"system-default-registry": {"https://r.example"}}, "host or host:port"},
		{"argument form", "server", config.Values{"kube-apiserver-arg": {"--v=2"}}, "without leading dashes"},
		{"what the double lacks", "server", config.Values{"etcd-s3": {"true"}}, "its double in the lab does not"},
	} {
		t.Run(c.name, func(t *testing.T) {
			values := base()
			for name, all := range c.values {
				values[name] = all
			}
			if _, err := Resolve(c.command, values); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	values := base()
	values["node-label"] = []string{"opstella.io/pool=apps", "node.kubernetes.io/x=y"}
	values["node-taint"] = []string{"dedicated=db:NoSchedule", "gone:NoExecute"}
	values["service-cidr"] = []string{"172.16.76.0/22"}
	s, err := Resolve("server", values)
	if err != nil {
		t.Fatal(err)
	}
	if s.ClusterCIDR.String() != "10.42.0.0/16" || s.ClusterDNS.String() != "172.16.76.10" || s.ServiceIP(1).String() != "172.16.76.1" {
		t.Errorf("networks: %s %s %s", s.ClusterCIDR, s.ClusterDNS, s.ServiceIP(1))
	}
	if s.Kubeconfig != "/etc/rancher/rke2/rke2.yaml" || s.KubeconfigMode != 0o600 || s.SnapshotRetention != 5 {
		t.Errorf("defaults: %s %o %d", s.Kubeconfig, s.KubeconfigMode, s.SnapshotRetention)
	}
	if s.Labels["opstella.io/pool"] != "apps" || !slices.Equal(s.Taints, []Taint{{"dedicated", "db", "NoSchedule"}, {"gone", "", "NoExecute"}}) {
		t.Errorf("%v %v", s.Labels, s.Taints)
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	values := base()
	values["token"], values["agent-token"] = []string{"canary-1"}, []string{"canary-2"}
	s, err := Resolve("server", values)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(s.Redacted(), " "); strings.Contains(text, "canary") || !strings.Contains(text, "--token ********") {
		t.Error(text)
	}
}
