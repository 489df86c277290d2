package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/media"
	"opstella.invalid/lab/rke2/internal/pki"
	"opstella.invalid/lab/rke2/internal/process"
	"opstella.invalid/lab/rke2/internal/settings"
	"opstella.invalid/lab/rke2/internal/token"
)

// Node is a running node. Stop ends what it started.
type Node struct {
	s        *settings.Settings
	version  string
	programs string
	children []*process.Child
	sup      *Supervisor
	cluster  ClusterConfig
	api      *Balancer
	client   *kube.Client
}

// Unpack makes the programs of the core image tarball available and returns
// their folder.
func Unpack(s *settings.Settings) (string, error) {
	images := s.Path("agent", "images")
	path, err := media.Find(images, "core")
	if err != nil {
		return "", err
	}
	folder, err := media.Unpack(path, s.Path("data"), s.Server)
	if err != nil {
		return "", err
	}
	if s.Server {
		// RKE2 bundles kubectl there, and administrators put the folder on PATH.
		if err := os.MkdirAll(s.Path("bin"), 0o755); err != nil {
			return "", err
		}
		link := s.Path("bin", "kubectl")
		_ = os.Remove(link)
		if err := os.Symlink(filepath.Join(folder, "bin", "kubectl"), link); err != nil {
			return "", err
		}
	}
	return folder, nil
}

// CheckCNI refuses a CNI plugin whose images are not on the host.
func CheckCNI(s *settings.Settings, plugins []string) error {
	for _, plugin := range plugins {
		if plugin == "none" {
			continue
		}
		path, err := media.Find(s.Path("agent", "images"), plugin)
		if err != nil {
			return fmt.Errorf("cni %s: %w", plugin, err)
		}
		if !strings.Contains(filepath.Base(path), plugin) {
			continue // the all-in-one tarball; what is in it is not looked up
		}
		manifest, err := media.Peek(path)
		if err != nil {
			return err
		}
		if manifest.Image != plugin {
			return fmt.Errorf("%s holds the images of %s, not of %s", path, manifest.Image, plugin)
		}
	}
	return nil
}

// Start joins the cluster through serverURL and returns once the node is
// Ready. It retries what may pass (a server that is not up yet) until ctx
// ends, and gives up on what will not (token, CA, node password refused).
func Start(ctx context.Context, s *settings.Settings, version, programs, serverURL string, t token.Token) (*Node, error) {
	n := &Node{s: s, version: version, programs: programs, api: &Balancer{}}
	var final error
	err := settings.Retry(ctx.Done(), 2*time.Second, func(err error) { log.Warn("Waiting to join at %s: %v", serverURL, err) }, func() error {
		err := n.joinAny(ctx, serverURL, t)
		var refused *Refused
		if errors.As(err, &refused) && (refused.Code == http.StatusUnauthorized || refused.Code == http.StatusForbidden) ||
			err != nil && strings.Contains(err.Error(), "CA hash does not match") {
			final = err
			return nil
		}
		return err
	})
	if err == nil {
		err = final
	}
	if err != nil {
		return nil, err
	}
	if err := n.run(ctx); err != nil {
		n.Stop()
		return nil, err
	}
	return n, nil
}

// Client reaches the API server with full rights.
func (n *Node) Client() *kube.Client { return n.client }

// Stop ends the node's processes.
func (n *Node) Stop() {
	for _, child := range n.children {
		go child.Stop()
	}
	for _, child := range n.children {
		child.Stop()
	}
}

// serversFile remembers the servers across restarts of the node.
func (n *Node) serversFile() string { return n.s.Path("agent", "etc", "rke2-agent-load-balancer.json") }

// joinAny joins through serverURL or, when that does not answer, through one
// of the servers that were there before, provided that they have the same CA.
func (n *Node) joinAny(ctx context.Context, serverURL string, t token.Token) error {
	err := n.join(ctx, serverURL, t)
	var refused *Refused
	if err == nil || errors.As(err, &refused) || n.s.Server {
		return err
	}
	var known []string
	data, read := os.ReadFile(n.serversFile())
	ca, pinned := os.ReadFile(n.s.Path("agent", "server-ca.crt"))
	if read != nil || pinned != nil || json.Unmarshal(data, &known) != nil {
		return err
	}
	t.CAHash = token.Hash(ca)
	for _, server := range known {
		if host, _, split := net.SplitHostPort(server); split == nil && n.join(ctx, "https://"+net.JoinHostPort(host, "9345"), t) == nil {
			log.Info("Joined through %s, since %s does not answer", host, serverURL)
			return nil
		}
	}
	return err
}

func (n *Node) join(ctx context.Context, serverURL string, t token.Token) error {
	s := n.s
	user := "node"
	if s.Server {
		user = "server"
	}
	sup, err := Connect(ctx, serverURL, t, user)
	if err != nil {
		return err
	}
	if err := sup.JSON(ctx, "/v1-rke2/config", &n.cluster); err != nil {
		return err
	}
	if err := CheckCNI(s, n.cluster.CNI); err != nil {
		return err
	}
	password, err := settings.NodePassword()
	if err != nil {
		return err
	}
	headers := map[string]string{"Rke2-Node-Name": s.NodeName, "Rke2-Node-Ip": s.NodeIP.String(), "Rke2-Node-Password": password}
	if err := pki.WriteFile(s.Path("agent", "server-ca.crt"), sup.CA, 0o644); err != nil {
		return err
	}
	for _, name := range []string{"client-kubelet", "serving-kubelet", "double-workloads"} {
		key, request, err := pki.NewRequest()
		if err != nil {
			return err
		}
		certificate, err := sup.Call(ctx, http.MethodPost, "/v1-rke2/"+name+".crt", headers, request)
		if err != nil {
			return err
		}
		if err := pki.WriteFile(s.Path("agent", name+".key"), key, 0o600); err != nil {
			return err
		}
		if err := pki.WriteFile(s.Path("agent", name+".crt"), certificate, 0o644); err != nil {
			return err
		}
	}
	n.sup = sup
	return nil
}

func (n *Node) run(ctx context.Context) error {
	s := n.s
	address := "https://127.0.0.1:6443"
	if !s.Server {
		host := n.sup.URL
		if u, err := url.Parse(n.sup.URL); err == nil {
			host = u.Hostname()
		}
		n.api.Set([]string{net.JoinHostPort(host, "6443")})
		if err := n.api.Serve(ctx, "127.0.0.1:6443"); err != nil {
			return fmt.Errorf("load balancer for the API servers: %w", err)
		}
	}
	for name, identity := range map[string]string{"kubelet": "client-kubelet", "double-workloads": "double-workloads"} {
		if err := WriteKubeconfig(s.Path("agent", name+".kubeconfig"), address, s.Path("agent", "server-ca.crt"), s.Path("agent", identity), 0o600); err != nil {
			return err
		}
	}
	var err error
	if n.client, err = kube.New(address, s.Path("agent", "server-ca.crt"), s.Path("agent", "double-workloads")); err != nil {
		return err
	}
	if !s.Server {
		go n.followServers(ctx)
	}
	kubelet, err := kube.New(address, s.Path("agent", "server-ca.crt"), s.Path("agent", "client-kubelet"))
	if err != nil {
		return err
	}
	waiting := func(what string) func(error) {
		return func(err error) { log.Info("Waiting for %s: %v", what, err) }
	}
	if err := settings.Retry(ctx.Done(), time.Second, waiting("the API server"), func() error { return n.client.Ready(ctx) }); err != nil {
		return err
	}
	if err := settings.Retry(ctx.Done(), time.Second, waiting("the node's registration"), func() error { return n.register(ctx, kubelet) }); err != nil {
		return err
	}
	if err := n.startKubelet(); err != nil {
		return err
	}
	go holdPods(ctx, n.client, s.NodeName)
	if err := settings.Retry(ctx.Done(), 500*time.Millisecond, waiting("the node to become Ready"), func() error { return n.ready(ctx) }); err != nil {
		return err
	}
	return n.startWorkloads()
}

// followServers keeps the list of API servers current, asking any of them.
func (n *Node) followServers(ctx context.Context) {
	for ctx.Err() == nil {
		var slices kube.Object
		if err := n.client.Get(ctx, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dkubernetes", &slices); err == nil {
			var servers []string
			for _, slice := range kube.Items(slices) {
				endpoints, _ := slice["endpoints"].([]any)
				for _, endpoint := range endpoints {
					addresses, _ := kube.At(endpoint, "addresses").([]any)
					for _, a := range addresses {
						servers = append(servers, net.JoinHostPort(fmt.Sprint(a), "6443"))
					}
				}
			}
			n.api.Set(servers)
			if text, err := json.Marshal(servers); err == nil && len(servers) > 0 {
				if err := pki.WriteFile(n.serversFile(), text, 0o600); err != nil {
					log.Warn("The list of servers could not be kept: %v", err)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(15 * time.Second):
		}
	}
}

func (n *Node) ready(ctx context.Context) error {
	var node kube.Object
	if err := n.client.Get(ctx, "/api/v1/nodes/"+n.s.NodeName, &node); err != nil {
		return err
	}
	conditions, _ := kube.At(node, "status", "conditions").([]any)
	for _, c := range conditions {
		if kube.Text(c, "type") == "Ready" && kube.Text(c, "status") == "True" {
			return nil
		}
	}
	return fmt.Errorf("node %s is not Ready", n.s.NodeName)
}

// podRange is the node's share of the pod network: what the controller
// manager gave it, else a part chosen by the node's address.
func (n *Node) podRange() string {
	var node kube.Object
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for range 8 {
		if n.client.Get(ctx, "/api/v1/nodes/"+n.s.NodeName, &node) == nil {
			if cidr := kube.Text(node, "spec", "podCIDR"); cidr != "" {
				return cidr
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	network, err := netip.ParsePrefix(n.cluster.ClusterCIDR)
	if err != nil || !network.Addr().Is4() || network.Bits() > 26 {
		return n.cluster.ClusterCIDR
	}
	base, own := network.Addr().As4(), n.s.NodeIP.As4()
	parts := min(1<<(26-network.Bits()), 256)
	offset := (int(own[3]) % parts) * 64
	base[3] += byte(offset % 256)
	base[2] += byte(offset / 256)
	return netip.PrefixFrom(netip.AddrFrom4(base), 26).String()
}

func (n *Node) startKubelet() error {
	s := n.s
	stages := s.Path("agent", "etc", "kwok-stages.yaml")
	if err := writeStages(filepath.Join(n.programs, "bin", "stages.yaml"), stages); err != nil {
		return err
	}
	n.children = append(n.children, process.Start(process.Spec{
		Name: "kubelet-double", Path: filepath.Join(n.programs, "bin", "kwok"), LogDir: s.Path("agent", "logs"), Patience: 2 * time.Second,
		Env: []string{"GOGC=50", "GOMEMLIMIT=160MiB", "GOMAXPROCS=2"},
		Args: []string{
			"--kubeconfig=" + s.Path("agent", "double-workloads.kubeconfig"),
			"--manage-single-node=" + s.NodeName, "--node-name=" + s.NodeName, "--node-ip=" + s.NodeIP.String(),
			"--node-lease-duration-seconds=40", "--cidr=" + n.podRange(), "--config=" + stages,
			"--node-port=10250", "--server-address=0.0.0.0:10250",
			"--tls-cert-file=" + s.Path("agent", "serving-kubelet.crt"), "--tls-private-key-file=" + s.Path("agent", "serving-kubelet.key"),
		},
	}))
	return nil
}

// writeStages keeps the stages for nodes and pods; KWOK would otherwise watch
// every volume of the cluster from every host.
func writeStages(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var kept []string
	for _, document := range strings.Split(string(data), "\n---\n") {
		if strings.Contains(document, "kind: Node\n") || strings.Contains(document, "kind: Pod\n") {
			kept = append(kept, document)
		}
	}
	if len(kept) == 0 {
		return fmt.Errorf("%s holds no stage for nodes or pods", from)
	}
	text := strings.Join(append(kept, readyAgain), "\n---\n")
	if strings.Count(text, startsPods) != 1 {
		return fmt.Errorf("%s: the stage pod-ready does not begin as it did; pods would start without what they refer to", from)
	}
	return pki.WriteFile(to, []byte(strings.Replace(text, startsPods, startsPods+onlyStartable, 1)), 0o644)
}

// startsPods is the beginning of KWOK's stage that makes a new pod Running; onlyStartable makes it wait for holdPods.
const (
	startsPods = `  name: pod-ready
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchExpressions:
`
	onlyStartable = `    - key: '.status.conditions.[] | select( .type == "` + startable + `" ) | .status'
      operator: 'In'
      values:
      - 'True'
`
)

// readyAgain brings back the pods of a node that was away: Kubernetes marks them not Ready when the
// node stops reporting, and KWOK's own stages only look at pods that have never run.
const readyAgain = `apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: pod-ready-again
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchExpressions:
    - key: '.metadata.deletionTimestamp'
      operator: 'DoesNotExist'
    - key: '.status.phase'
      operator: 'In'
      values:
      - 'Running'
    - key: '.status.conditions.[] | select( .type == "Ready" ) | .status'
      operator: 'In'
      values:
      - 'False'
  delay:
    durationMilliseconds: 1000
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      - lastTransitionTime: {{ $now | Quote }}
        status: "True"
        type: Ready
      - lastTransitionTime: {{ $now | Quote }}
        status: "True"
        type: ContainersReady
`

// workload is an entry of workloads.json.
type workload struct {
	Name   string   `json:"name"`
	Binary string   `json:"binary"`
	Where  string   `json:"where"` // "server", "agent" or "all"
	Args   []string `json:"args"`
}

// startWorkloads runs the programs that stand in for containers.
func (n *Node) startWorkloads() error {
	s := n.s
	folder := filepath.Join(n.programs, "workloads")
	data, err := os.ReadFile(filepath.Join(folder, "workloads.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []workload
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("workloads.json: %w", err)
	}
	own := "agent"
	if s.Server {
		own = "server"
	}
	for _, w := range all {
		if w.Where != own && w.Where != "all" {
			continue
		}
		n.children = append(n.children, process.Start(process.Spec{
			Name: w.Name, Path: filepath.Join(folder, w.Binary), Args: w.Args, LogDir: s.Path("agent", "logs"), Patience: 2 * time.Second,
			Env: []string{
				"KUBECONFIG=" + s.Path("agent", "double-workloads.kubeconfig"), "NODE_NAME=" + s.NodeName, "NODE_IP=" + s.NodeIP.String(),
				"GOGC=50", "GOMEMLIMIT=256MiB", "GOMAXPROCS=2",
			},
		}))
	}
	return nil
}
