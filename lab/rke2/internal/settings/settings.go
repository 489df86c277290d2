// Package settings turns flag values into the resolved, checked settings of
// one server or agent. Nothing is written or started before all checks pass.
package settings

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/config"
	"opstella.invalid/lab/rke2/internal/cron"
	"opstella.invalid/lab/rke2/internal/token"
)

// Taint keeps pods off a node.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

// Settings of one start of `rke2 server` or `rke2 agent`.
type Settings struct {
	Server  bool // server or agent
	Values  config.Values
	DataDir string

	NodeName    string
	NodeIP      netip.Addr
	ExternalIPs []string
	Labels      map[string]string
	Taints      []Taint

	ServerURL  string // of a server to join, empty on the first
	Token      token.Token
	AgentToken string // secret that agents may use besides Token's

	ClusterCIDR, ServiceCIDR netip.Prefix
	ClusterDNS               netip.Addr
	ClusterDomain            string
	CNI                      []string
	Profile                  string

	Kubeconfig     string
	KubeconfigMode os.FileMode

	Snapshots         cron.Schedule
	SnapshotRetention int
	SnapshotDir       string
	SnapshotName      string
}

// Path joins the data folder and more.
func (s *Settings) Path(more ...string) string {
	return filepath.Join(append([]string{s.DataDir}, more...)...)
}

// ServiceIP is the n-th address of the service network.
func (s *Settings) ServiceIP(n int) netip.Addr { return nth(s.ServiceCIDR, n) }

func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// nodeFolder keeps the node's identity outlasting the data folder.
const nodeFolder = "/etc/rancher/node"

// cniItems and ingressItems: rancher/rke2 pkg/cli/types.go.
var (
	cniItems     = []string{"calico", "canal", "cilium", "flannel", "none"}
	ingressItems = []string{"traefik", "ingress-nginx", "none"}
	nodeNameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	labelForm    = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$`)
)

// Resolve checks values and fills in RKE2's defaults; all problems at once.
func Resolve(command string, values config.Values) (*Settings, error) {
	s := &Settings{Server: command == "server", Values: values, Labels: map[string]string{}}
	var problems []error
	problem := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }

	s.DataDir = values.String("data-dir", "/var/lib/rancher/rke2")
	s.resolveNode(problem)
	s.resolveJoin(problem)
	s.Profile = values.String("profile", "")
	problems = append(problems, checkProfile(s.Profile, s.Server, values))
	if registry := values.String("system-default-registry", ""); registry != "" {
		if u, err := url.Parse("//" + registry); err != nil || u.Host != registry {
			problem("system-default-registry: %q must be host or host:port, without scheme and path", registry)
		}
	}
	problems = append(problems, config.CheckRegistries(values.String("private-registry", "/etc/rancher/rke2/registries.yaml")))
	if s.Server {
		s.resolveServer(problem)
	}
	return s, errors.Join(problems...)
}

func (s *Settings) resolveNode(problem func(string, ...any)) {
	values := s.Values
	s.NodeName = values.String("node-name", "")
	if s.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			problem("node-name: not set, and the hostname cannot be read: %v", err)
		}
		s.NodeName = strings.ToLower(host)
	}
	if values.Bool("with-node-id") {
		id, err := keep(filepath.Join(nodeFolder, "id"), 4)
		if err != nil {
			problem("with-node-id: %v", err)
		}
		s.NodeName += "-" + id
	}
	if !nodeNameForm.MatchString(s.NodeName) {
		problem("node-name: %q is no valid node name (lower case letters, digits, '-' and '.')", s.NodeName)
	}
	own, err := hostAddresses()
	if err != nil {
		problem("node-ip: cannot list the host's addresses: %v", err)
	}
	if given := values.List("node-ip", true); len(given) > 0 {
		if s.NodeIP, err = netip.ParseAddr(given[0]); err != nil {
			problem("node-ip: %q is no IP address", given[0])
		} else if !slices.Contains(own, s.NodeIP) {
			problem("node-ip: %s is not an address of this host (it has %v)", s.NodeIP, own)
		}
	} else if len(own) == 0 {
		problem("node-ip: not set, and the host has no address but loopback")
	} else {
		s.NodeIP = own[0]
	}
	s.ExternalIPs = values.List("node-external-ip", true)
	for _, text := range values.List("node-label", true) {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" || !labelForm.MatchString(value) {
			problem("node-label: %q is not of the form key=value", text)
			continue
		}
		if reason := refusedLabel(key); reason != "" {
			problem("node-label: unknown 'kubernetes.io' or 'k8s.io' label %q: %s", key, reason)
			continue
		}
		s.Labels[key] = value
	}
	for _, text := range values.List("node-taint", true) {
		body, effect, found := strings.Cut(text, ":")
		key, value, _ := strings.Cut(body, "=")
		if !found || key == "" || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			problem("node-taint: %q is not of the form key=value:NoSchedule (or PreferNoSchedule, NoExecute)", text)
			continue
		}
		s.Taints = append(s.Taints, Taint{key, value, effect})
	}
}

// refusedLabel is the kubelet's rule for --node-labels (KEP-279): of the
// kubernetes.io and k8s.io domains, a node may only set these on itself.
func refusedLabel(key string) string {
	domain, _, namespaced := strings.Cut(key, "/")
	if !namespaced {
		return ""
	}
	reserved := func(d string) bool {
		return domain == d || strings.HasSuffix(domain, "."+d)
	}
	if !reserved("kubernetes.io") && !reserved("k8s.io") || reserved("kubelet.kubernetes.io") || reserved("node.kubernetes.io") {
		return ""
	}
	if slices.Contains([]string{
		"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/arch", "beta.kubernetes.io/os",
		"beta.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
		"failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
	}, key) {
		return ""
	}
	return "the kubelet does not start with it; set it on the Node object with a cluster administrator's rights after the node has joined"
}

func (s *Settings) resolveJoin(problem func(string, ...any)) {
	values := s.Values
	s.ServerURL = strings.TrimRight(values.String("server", ""), "/")
	text := values.String("token", "")
	if file := values.String("token-file", ""); text == "" && file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			problem("token-file: %v", err)
		}
		text = strings.TrimSpace(string(data))
	}
	if s.ServerURL != "" {
		if u, err := url.Parse(s.ServerURL); err != nil || u.Scheme != "https" || u.Host == "" {
			problem("server: only https:// URLs are supported, invalid: %s (it is https://ADDRESS:9345 of a server or of a load balancer in front)", s.ServerURL)
		}
	}
	if !s.Server && s.ServerURL == "" {
		problem("--server is required: an agent joins the cluster at https://ADDRESS:9345")
	}
	if text == "" && (!s.Server || s.ServerURL != "") {
		problem("--token is required: joining %s needs the token (a server has it in /var/lib/rancher/rke2/server/node-token)", s.ServerURL)
	}
	if text != "" {
		var err error
		if s.Token, err = token.Parse(text); err != nil {
			problem("token: %v", err)
		}
	}
	s.AgentToken = values.String("agent-token", "")
	if file := values.String("agent-token-file", ""); s.AgentToken == "" && file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			problem("agent-token-file: %v", err)
		}
		s.AgentToken = strings.TrimSpace(string(data))
	}
}

func (s *Settings) resolveServer(problem func(string, ...any)) {
	values := s.Values
	prefix := func(name, fallback string) netip.Prefix {
		all := values.List(name, true)
		if len(all) == 0 {
			all = []string{fallback}
		}
		p, err := netip.ParsePrefix(all[0])
		if err != nil {
			problem("%s: %q is no network such as %s", name, all[0], fallback)
			return netip.MustParsePrefix(fallback)
		}
		return p.Masked()
	}
	s.ClusterCIDR = prefix("cluster-cidr", "10.42.0.0/16")
	s.ServiceCIDR = prefix("service-cidr", "10.43.0.0/16")
	if s.ClusterCIDR.Overlaps(s.ServiceCIDR) {
		problem("cluster-cidr %s and service-cidr %s overlap", s.ClusterCIDR, s.ServiceCIDR)
	}
	s.ClusterDNS = nth(s.ServiceCIDR, 10)
	if given := values.List("cluster-dns", true); len(given) > 0 {
		dns, err := netip.ParseAddr(given[0])
		if err != nil || !s.ServiceCIDR.Contains(dns) {
			problem("cluster-dns: %q is no address of service-cidr %s", given[0], s.ServiceCIDR)
		}
		s.ClusterDNS = dns
	}
	s.ClusterDomain = values.String("cluster-domain", "cluster.local")

	s.CNI = values.List("cni", true)
	if len(s.CNI) == 0 {
		s.CNI = []string{"canal"}
	}
	checked := s.CNI
	if s.CNI[0] == "multus" {
		checked = s.CNI[1:]
	}
	if len(checked) != 1 {
		problem("Failed to validate --cni flag: takes one of %s, or multus and one of them", strings.Join(cniItems, ", "))
	} else if !slices.Contains(cniItems, checked[0]) {
		problem("Invalid value %s for --cni flag: must be one of %s", checked[0], strings.Join(cniItems, ","))
	}
	for _, item := range values.List("ingress-controller", true) {
		if !slices.Contains(ingressItems, item) {
			problem("Invalid value %s for --ingress-controller flag: must be one of %s", item, strings.Join(ingressItems, ","))
		}
	}
	for _, name := range []string{"etcd-s3", "datastore-endpoint", "disable-etcd", "disable-apiserver", "disable-agent"} {
		if value := values.String(name, ""); value != "" && value != "false" {
			problem("%s: RKE2 knows this, its double in the lab does not; leave it out in the lab", name)
		}
	}

	s.Kubeconfig = values.String("write-kubeconfig", "/etc/rancher/rke2/rke2.yaml")
	mode, err := strconv.ParseUint(values.String("write-kubeconfig-mode", "600"), 8, 12)
	if err != nil {
		problem("write-kubeconfig-mode: %q is no octal mode; quote it in YAML (write-kubeconfig-mode: \"0600\"), as an unquoted 0600 is read as the number 384",
			values.String("write-kubeconfig-mode", ""))
	}
	s.KubeconfigMode = os.FileMode(mode)

	if s.Snapshots, err = cron.Parse(values.String("etcd-snapshot-schedule-cron", "0 */12 * * *")); err != nil {
		problem("etcd-snapshot-schedule-cron: %v", err)
	}
	s.SnapshotRetention, _ = strconv.Atoi(values.String("etcd-snapshot-retention", "5"))
	s.SnapshotDir = values.String("etcd-snapshot-dir", s.Path("server", "db", "snapshots"))
	s.SnapshotName = values.String("etcd-snapshot-name", "etcd-snapshot")
	for _, name := range []string{"kube-apiserver-arg", "kube-controller-manager-arg", "kube-scheduler-arg", "etcd-arg", "kubelet-arg"} {
		for _, arg := range values[name] {
			if key, _, found := strings.Cut(arg, "="); !found || key == "" || strings.HasPrefix(key, "-") {
				problem("%s: %q is not of the form flag=value, without leading dashes", name, arg)
			}
		}
	}
}

// cisParameters: rancher/rke2 pkg/cli/cmds/profile_linux.go.
var cisParameters = []struct {
	path string
	want string
}{{"vm/overcommit_memory", "1"}, {"vm/panic_on_oom", "0"}, {"kernel/panic", "10"}, {"kernel/panic_on_oops", "1"}}

func checkProfile(profile string, server bool, values config.Values) error {
	var problems []error
	switch profile {
	case "":
		return nil
	case "cis":
		for _, p := range cisParameters {
			data, err := os.ReadFile("/proc/sys/" + p.path)
			got := strings.TrimSpace(string(data))
			if err != nil {
				problems = append(problems, err)
			} else if got != p.want {
				problems = append(problems, fmt.Errorf("invalid kernel parameter value %s=%s - expected %s", strings.ReplaceAll(p.path, "/", "."), got, p.want))
			}
		}
		if values.String("protect-kernel-defaults", "true") != "true" {
			problems = append(problems, errors.New("--protect-kernel-defaults must be true when using --profile=cis"))
		}
	case "etcd":
	default:
		return fmt.Errorf("invalid value provided for --profile flag: %q, it is cis or etcd", profile)
	}
	if server {
		if _, err := user.Lookup("etcd"); err != nil {
			problems = append(problems, fmt.Errorf("missing required: %w", err))
		}
		if _, err := user.LookupGroup("etcd"); err != nil {
			problems = append(problems, fmt.Errorf("missing required: %w", err))
		}
	}
	return errors.Join(problems...)
}

// hostAddresses lists the host's IPv4 addresses without loopback, those of
// the interface that the default route leaves by first.
func hostAddresses() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	preferred := defaultRouteInterface()
	slices.SortStableFunc(interfaces, func(a, b net.Interface) int {
		switch {
		case a.Name == preferred:
			return -1
		case b.Name == preferred:
			return 1
		}
		return 0
	})
	var out []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				out = append(out, p.Addr())
			}
		}
	}
	return out, nil
}

func defaultRouteInterface() string {
	data, _ := os.ReadFile("/proc/net/route")
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "00000000" {
			return f[0]
		}
	}
	return ""
}

// keep returns the file's text, making it of n random bytes (hex) when absent.
func keep(path string, n int) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	random := make([]byte, n)
	_, _ = rand.Read(random)
	text := hex.EncodeToString(random)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return text, os.WriteFile(path, []byte(text+"\n"), 0o600)
}

// NodePassword is the secret by which a node proves that it is the one that
// took its name; made at the first start and kept apart from the data folder.
func NodePassword() (string, error) { return keep(filepath.Join(nodeFolder, "password"), 16) }

// Redacted is the command line as the node annotation shows it.
func (s *Settings) Redacted() []string {
	command := "agent"
	if s.Server {
		command = "server"
	}
	out := []string{command}
	names := make([]string, 0, len(s.Values))
	for name := range s.Values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range s.Values[name] {
			if strings.Contains(name, "token") || strings.Contains(name, "secret-key") || strings.Contains(name, "access-key") {
				value = "********"
			}
			out = append(out, "--"+name, value)
		}
	}
	return out
}

// Retry calls f until it succeeds or the context ends, and says each distinct
// failure once.
func Retry(done <-chan struct{}, pause time.Duration, say func(error), f func() error) error {
	last := ""
	for {
		err := f()
		if err == nil {
			return nil
		}
		if text := err.Error(); text != last {
			say(err)
			last = text
		}
		select {
		case <-done:
			return err
		case <-time.After(pause):
		}
	}
}
