// Package server is the control-plane side of the double: the real etcd, API
// server, controller manager and scheduler, and RKE2's supervisor on 9345.
package server

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/etcd"
	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/pki"
	"opstella.invalid/lab/rke2/internal/process"
	"opstella.invalid/lab/rke2/internal/settings"
	"opstella.invalid/lab/rke2/internal/token"
)

// Server is a running server node.
type Server struct {
	s        *settings.Settings
	version  string
	programs string

	clientCA, serverCA, headerCA, etcdServerCA, etcdPeerCA *pki.Authority

	secret string // of servers
	node   *agent.Node
	admin  *kube.Client
	db     *etcd.Client
	name   string // of the etcd member

	etcdChild, apiChild *process.Child
	others              []*process.Child
	supervisor          *supervisor
}

// Start brings a server up and returns once its API server answers and its
// node is Ready, which is when RKE2 reports readiness to systemd.
func Start(ctx context.Context, s *settings.Settings, version string) (*Server, error) {
	v := &Server{s: s, version: version}
	if err := v.start(ctx); err != nil {
		v.Stop()
		return nil, err
	}
	return v, nil
}

func (v *Server) tls(more ...string) string {
	return v.s.Path(append([]string{"server", "tls"}, more...)...)
}

func (v *Server) start(ctx context.Context) error {
	s := v.s
	if err := os.MkdirAll(s.DataDir, 0o755); err != nil {
		return err
	}
	// RKE2 closes this folder to everyone else.
	if err := os.MkdirAll(s.Path("server"), 0o700); err != nil {
		return err
	}
	for _, folder := range []string{"manifests", "db", "tls", "cred", "etc"} {
		if err := os.MkdirAll(s.Path("server", folder), 0o700); err != nil {
			return err
		}
	}
	if err := agent.CheckCNI(s, s.CNI); err != nil {
		return err
	}
	var err error
	if v.programs, err = agent.Unpack(s); err != nil {
		return err
	}
	fresh := !exists(s.Path("server", "db", "etcd", "member"))
	var join *agent.Supervisor
	if fresh && s.ServerURL != "" {
		var stop *final
		err := settings.Retry(ctx.Done(), 2*time.Second, func(err error) { log.Warn("Waiting to join at %s: %v", s.ServerURL, err) }, func() error {
			var err error
			join, err = v.bootstrap(ctx)
			if errors.As(err, &stop) {
				return nil
			}
			return err
		})
		if stop != nil {
			return stop.error
		}
		if err != nil {
			return err
		}
	}
	if err := v.prepare(); err != nil {
		return err
	}
	if v.supervisor, err = serve(v); err != nil {
		return err
	}
	if err := v.startEtcd(ctx, join); err != nil {
		return err
	}
	v.startAPIServer()
	if v.admin, err = kube.New("https://127.0.0.1:6443", v.tls("server-ca.crt"), v.tls("client-admin")); err != nil {
		return err
	}
	if err := settings.Retry(ctx.Done(), 500*time.Millisecond, func(err error) { log.Info("Waiting for API server to become available: %v", err) },
		func() error { return v.admin.Ready(ctx) }); err != nil {
		return err
	}
	log.Info("Kube API server is now running")
	v.startControllers()
	if err := v.writeKubeconfig(); err != nil {
		return err
	}
	v.supervisor.open(v.admin)
	t := token.Token{CAHash: token.Hash(v.serverCA.PEM), User: "server", Secret: v.secret}
	if v.node, err = agent.Start(ctx, s, v.version, v.programs, "https://127.0.0.1:9345", t); err != nil {
		return err
	}
	if err := v.labelRoles(ctx); err != nil {
		return err
	}
	go v.deployManifests(ctx)
	go v.scheduleSnapshots(ctx)
	go v.watchNodes(ctx)
	go v.provisionVolumes(ctx)
	return nil
}

// Stop ends all children: what needs the API server before it, etcd last.
func (v *Server) Stop() {
	if v.node != nil {
		v.node.Stop()
	}
	for _, child := range v.others {
		child.Stop()
	}
	v.apiChild.Stop()
	v.etcdChild.Stop()
	if v.supervisor != nil {
		v.supervisor.close()
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// shared are the files that every server of a cluster has in common.
var shared = []string{
	"tls/client-ca.crt", "tls/client-ca.key", "tls/server-ca.crt", "tls/server-ca.key",
	"tls/request-header-ca.crt", "tls/request-header-ca.key", "tls/service.key",
	"tls/etcd/server-ca.crt", "tls/etcd/server-ca.key", "tls/etcd/peer-ca.crt", "tls/etcd/peer-ca.key",
	"cred/passwd", "cred/encryption-config.json",
}

// critical are settings that all servers must agree on.
func critical(s *settings.Settings) map[string]string {
	return map[string]string{
		"cluster-cidr": s.ClusterCIDR.String(), "service-cidr": s.ServiceCIDR.String(), "cluster-dns": s.ClusterDNS.String(),
		"cluster-domain": s.ClusterDomain, "egress-selector-mode": s.Values.String("egress-selector-mode", "agent"),
		"disable-cloud-controller": s.Values.String("disable-cloud-controller", "false"),
		"embedded-registry":        s.Values.String("embedded-registry", "false"),
	}
}

type bootstrapData struct {
	Files    map[string][]byte `json:"files"`
	Critical map[string]string `json:"critical"`
}

// final marks a failure that no further try can change.
type final struct{ error }

// bootstrap fetches the shared files from a server that is already up.
func (v *Server) bootstrap(ctx context.Context) (*agent.Supervisor, error) {
	t := v.s.Token
	sup, err := agent.Connect(ctx, v.s.ServerURL, t, "server")
	if err != nil {
		if strings.Contains(err.Error(), "CA hash does not match") {
			return nil, &final{err}
		}
		return nil, err
	}
	var data bootstrapData
	if err := sup.JSON(ctx, "/v1-rke2/server-bootstrap", &data); err != nil {
		var refused *agent.Refused
		if errors.As(err, &refused) && refused.Code == 401 {
			return nil, &final{fmt.Errorf("joining the cluster at %s: %w", v.s.ServerURL, err)}
		}
		return nil, err
	}
	for key, own := range critical(v.s) {
		if theirs := data.Critical[key]; theirs != own {
			return nil, &final{fmt.Errorf("critical configuration value mismatch between servers: %s is %q here and %q at %s", key, own, theirs, v.s.ServerURL)}
		}
	}
	for _, name := range shared {
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".crt") {
			mode = 0o644
		}
		if err := pki.WriteFile(v.s.Path("server", name), data.Files[name], mode); err != nil {
			return nil, err
		}
	}
	return sup, nil
}

// prepare makes, or keeps, authorities, certificates, tokens and kubeconfigs.
func (v *Server) prepare() error {
	s := v.s
	var err error
	for _, a := range []struct {
		into *(*pki.Authority)
		base string
		name string
	}{
		{&v.clientCA, "client-ca", "rke2-client-ca"}, {&v.serverCA, "server-ca", "rke2-server-ca"},
		{&v.headerCA, "request-header-ca", "rke2-request-header-ca"},
		{&v.etcdServerCA, "etcd/server-ca", "etcd-server-ca"}, {&v.etcdPeerCA, "etcd/peer-ca", "etcd-peer-ca"},
	} {
		if *a.into, err = pki.EnsureAuthority(v.tls(a.base), a.name); err != nil {
			return err
		}
	}
	host, _ := os.Hostname()
	own := append([]string{"127.0.0.1", "localhost", s.NodeIP.String(), s.NodeName, host}, s.Values.List("tls-san", true)...)
	own = append(own, s.ExternalIPs...)
	service := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.ClusterDomain, s.ServiceIP(1).String()}
	masters := []string{"system:masters"}
	for _, l := range []struct {
		ca   *pki.Authority
		base string
		leaf pki.Leaf
	}{
		{v.clientCA, "client-admin", pki.Leaf{CommonName: "system:admin", Organizations: masters, Client: true}},
		{v.clientCA, "client-supervisor", pki.Leaf{CommonName: "system:rke2-supervisor", Organizations: masters, Client: true}},
		{v.clientCA, "client-controller", pki.Leaf{CommonName: "system:kube-controller-manager", Client: true}},
		{v.clientCA, "client-scheduler", pki.Leaf{CommonName: "system:kube-scheduler", Client: true}},
		{v.clientCA, "client-kube-apiserver", pki.Leaf{CommonName: "system:apiserver", Organizations: masters, Client: true}},
		{v.headerCA, "client-auth-proxy", pki.Leaf{CommonName: "system:auth-proxy", Client: true}},
		{v.serverCA, "serving-kube-apiserver", pki.Leaf{CommonName: "kube-apiserver", Names: append(service, own...), Server: true}},
		{v.serverCA, "serving-rke2", pki.Leaf{CommonName: "rke2", Organizations: []string{"rke2"}, Names: append(service, own...), Server: true}},
		{v.etcdServerCA, "etcd/server-client", pki.Leaf{CommonName: "etcd-server", Names: own, Server: true, Client: true}},
		{v.etcdServerCA, "etcd/client", pki.Leaf{CommonName: "etcd-client", Client: true}},
		{v.etcdPeerCA, "etcd/peer-server-client", pki.Leaf{CommonName: "etcd-peer", Names: own, Server: true, Client: true}},
	} {
		if err := l.ca.EnsureLeaf(v.tls(l.base), l.leaf); err != nil {
			return fmt.Errorf("certificate %s: %w", l.base, err)
		}
	}
	if err := pki.EnsureServiceKey(v.tls("service.key")); err != nil {
		return err
	}
	for name, identity := range map[string]string{
		"admin": "client-admin", "controller": "client-controller", "scheduler": "client-scheduler", "supervisor": "client-supervisor",
	} {
		if err := agent.WriteKubeconfig(s.Path("server", "cred", name+".kubeconfig"), "https://127.0.0.1:6443", v.tls("server-ca.crt"), v.tls(identity), 0o600); err != nil {
			return err
		}
	}
	if err := v.prepareTokens(); err != nil {
		return err
	}
	if err := v.prepareEncryption(); err != nil {
		return err
	}
	return v.preparePodSecurity()
}

// prepareTokens keeps the secrets in cred/passwd (password,user,uid,groups)
// and writes the token files.
func (v *Server) prepareTokens() error {
	s := v.s
	path := s.Path("server", "cred", "passwd")
	kept := map[string]string{}
	if data, err := os.ReadFile(path); err == nil {
		for _, line := range strings.Split(string(data), "\n") {
			if f := strings.Split(line, ","); len(f) >= 2 {
				kept[f[1]] = f[0]
			}
		}
	}
	v.secret = kept["server"]
	switch given := s.Token.Secret; {
	case v.secret == "" && given == "":
		random := make([]byte, 16)
		_, _ = rand.Read(random)
		v.secret = hex.EncodeToString(random)
	case v.secret == "":
		v.secret = given
	case given != "" && given != v.secret:
		return fmt.Errorf("the token differs from the one that this server's data in %s was made with: "+
			"restore the old token in the configuration (RKE2 refuses too: bootstrap data already found and encrypted with different token)", s.Path("server"))
	}
	if strings.ContainsAny(v.secret, ",\n") {
		return errors.New("token: must not contain commas or line breaks")
	}
	// Without a token of their own, agents use the servers'.
	agents := kept["node"]
	if s.AgentToken != "" {
		agents = s.AgentToken
	}
	if agents == "" {
		agents = v.secret
	}
	if err := pki.WriteFile(path, []byte(v.secret+",server,server,rke2:server\n"+agents+",node,node,rke2:agent\n"), 0o600); err != nil {
		return err
	}
	full := token.Format("server", v.secret, v.serverCA.PEM) + "\n"
	if err := pki.WriteFile(s.Path("server", "token"), []byte(full), 0o600); err != nil {
		return err
	}
	if err := pki.WriteFile(s.Path("server", "agent-token"), []byte(token.Format("node", agents, v.serverCA.PEM)+"\n"), 0o600); err != nil {
		return err
	}
	link := s.Path("server", "node-token")
	if exists(link) {
		return nil
	}
	return os.Symlink(s.Path("server", "token"), link)
}

// prepareEncryption makes the key that secrets are encrypted with in etcd,
// which RKE2 does by default.
func (v *Server) prepareEncryption() error {
	path := v.s.Path("server", "cred", "encryption-config.json")
	if exists(path) {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	text, err := json.Marshal(map[string]any{
		"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1",
		"resources": []any{map[string]any{
			"resources": []string{"secrets"},
			"providers": []any{
				map[string]any{"aescbc": map[string]any{"keys": []any{map[string]any{"name": "aescbckey", "secret": base64.StdEncoding.EncodeToString(key)}}}},
				map[string]any{"identity": map[string]any{}},
			},
		}},
	})
	if err != nil {
		return err
	}
	return pki.WriteFile(path, text, 0o600)
}

// podSecurityFile is the admission configuration that RKE2 writes.
const podSecurityFile = "/etc/rancher/rke2/rke2-pss.yaml"

// preparePodSecurity writes the pod security defaults: privileged, or with
// the CIS profile restricted outside RKE2's own namespaces.
//
// Source: rancher/rke2 pkg/rke2/psa.go.
func (v *Server) preparePodSecurity() error {
	if v.s.Values.String("pod-security-admission-config-file", "") != "" {
		return nil
	}
	level, more, exempt := "privileged", "", "[]"
	if v.s.Profile == "cis" {
		level, exempt = "restricted", "[kube-system, compliance-operator-system, tigera-operator]"
		more = "      audit: restricted\n      audit-version: latest\n      warn: restricted\n      warn-version: latest\n"
	}
	return pki.WriteFile(podSecurityFile, []byte(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults:
      enforce: `+level+`
      enforce-version: latest
`+more+`    exemptions:
      usernames: []
      runtimeClasses: []
      namespaces: `+exempt+"\n"), 0o600)
}

// arguments joins defaults and the administrator's flag=value settings, which
// win; a flag may be given several times.
func arguments(defaults map[string]string, given []string) []string {
	replaced := map[string]bool{}
	var out []string
	for _, arg := range given {
		key, _, _ := strings.Cut(arg, "=")
		replaced[key] = true
	}
	for key, value := range defaults {
		if !replaced[key] {
			out = append(out, "--"+key+"="+value)
		}
	}
	for _, arg := range given {
		out = append(out, "--"+arg)
	}
	return out
}

func (v *Server) program(name string) string { return filepath.Join(v.programs, "bin", name) }

func (v *Server) startAPIServer() {
	s := v.s
	defaults := map[string]string{
		"advertise-address": s.NodeIP.String(), "secure-port": "6443", "bind-address": "0.0.0.0",
		"admission-control-config-file": s.Values.String("pod-security-admission-config-file", podSecurityFile),
		"allow-privileged":              "true", "anonymous-auth": "false", "authorization-mode": "Node,RBAC",
		"api-audiences": "https://kubernetes.default.svc." + s.ClusterDomain + ",rke2", "cert-dir": s.Path("server", "tls", "temporary-certs"),
		"client-ca-file": v.tls("client-ca.crt"), "enable-admission-plugins": "NodeRestriction",
		"encryption-provider-config": s.Path("server", "cred", "encryption-config.json"),
		"etcd-servers":               "https://127.0.0.1:2379", "etcd-cafile": v.tls("etcd", "server-ca.crt"),
		"etcd-certfile": v.tls("etcd", "client.crt"), "etcd-keyfile": v.tls("etcd", "client.key"),
		"kubelet-certificate-authority": v.tls("server-ca.crt"), "kubelet-client-certificate": v.tls("client-kube-apiserver.crt"),
		"kubelet-client-key": v.tls("client-kube-apiserver.key"), "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file": v.tls("client-auth-proxy.crt"), "proxy-client-key-file": v.tls("client-auth-proxy.key"),
		"requestheader-allowed-names": "system:auth-proxy", "requestheader-client-ca-file": v.tls("request-header-ca.crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-", "requestheader-group-headers": "X-Remote-Group", "requestheader-username-headers": "X-Remote-User",
		"service-account-issuer":   "https://kubernetes.default.svc." + s.ClusterDomain,
		"service-account-key-file": v.tls("service.key"), "service-account-signing-key-file": v.tls("service.key"),
		"service-cluster-ip-range": s.ServiceCIDR.String(), "service-node-port-range": s.Values.String("service-node-port-range", "30000-32767"),
		"tls-cert-file": v.tls("serving-kube-apiserver.crt"), "tls-private-key-file": v.tls("serving-kube-apiserver.key"),
		"profiling": "false", "shutdown-delay-duration": "0s",
		"min-request-timeout": "300",
	}
	if file := s.Values.String("audit-policy-file", ""); file != "" {
		defaults["audit-policy-file"] = file
		defaults["audit-log-path"] = s.Path("server", "logs", "audit.log")
		defaults["audit-log-maxage"], defaults["audit-log-maxbackup"], defaults["audit-log-maxsize"] = "30", "10", "100"
		_ = os.MkdirAll(s.Path("server", "logs"), 0o700)
	}
	v.apiChild = process.Start(process.Spec{
		Name: "kube-apiserver", Path: v.program("kube-apiserver"), LogDir: s.Path("server", "logs"), Patience: 3 * time.Second,
		Env: []string{"GOGC=75", "GOMEMLIMIT=1GiB"}, Args: arguments(defaults, s.Values["kube-apiserver-arg"]),
	})
}

func (v *Server) startControllers() {
	s := v.s
	controller := s.Path("server", "cred", "controller.kubeconfig")
	scheduler := s.Path("server", "cred", "scheduler.kubeconfig")
	defaults := map[string]string{
		"kubeconfig": controller, "authentication-kubeconfig": controller, "authorization-kubeconfig": controller,
		"allocate-node-cidrs": "true", "cluster-cidr": s.ClusterCIDR.String(), "service-cluster-ip-range": s.ServiceCIDR.String(),
		"bind-address": "127.0.0.1", "secure-port": "10257", "leader-elect": "true", "profiling": "false",
		"controllers":                      "*,tokencleaner",
		"service-account-private-key-file": v.tls("service.key"), "root-ca-file": v.tls("server-ca.crt"), "use-service-account-credentials": "true",
		"cluster-signing-kube-apiserver-client-cert-file": v.tls("client-ca.crt"), "cluster-signing-kube-apiserver-client-key-file": v.tls("client-ca.key"),
		"cluster-signing-kubelet-client-cert-file": v.tls("client-ca.crt"), "cluster-signing-kubelet-client-key-file": v.tls("client-ca.key"),
		"cluster-signing-kubelet-serving-cert-file": v.tls("server-ca.crt"), "cluster-signing-kubelet-serving-key-file": v.tls("server-ca.key"),
		"cluster-signing-legacy-unknown-cert-file": v.tls("server-ca.crt"), "cluster-signing-legacy-unknown-key-file": v.tls("server-ca.key"),
		"terminated-pod-gc-threshold": "1000", "kube-api-qps": "60", "kube-api-burst": "100",
	}
	// One network may be too small for Kubernetes' /24 per node.
	if s.ClusterCIDR.Bits() > 24 {
		defaults["node-cidr-mask-size"] = strconv.Itoa(min(s.ClusterCIDR.Bits()+4, 30))
	}
	v.others = append(v.others,
		process.Start(process.Spec{
			Name: "kube-controller-manager", Path: v.program("kube-controller-manager"), LogDir: s.Path("server", "logs"), Patience: time.Second,
			Env: []string{"GOGC=50", "GOMEMLIMIT=384MiB"}, Args: arguments(defaults, s.Values["kube-controller-manager-arg"]),
		}),
		process.Start(process.Spec{
			Name: "kube-scheduler", Path: v.program("kube-scheduler"), LogDir: s.Path("server", "logs"), Patience: time.Second,
			Env: []string{"GOGC=50", "GOMEMLIMIT=192MiB"}, Args: arguments(map[string]string{
				"kubeconfig": scheduler, "authentication-kubeconfig": scheduler, "authorization-kubeconfig": scheduler,
				"bind-address": "127.0.0.1", "secure-port": "10259", "leader-elect": "true", "profiling": "false",
			}, s.Values["kube-scheduler-arg"]),
		}))
}

func (v *Server) writeKubeconfig() error {
	s := v.s
	return agent.WriteKubeconfig(s.Kubeconfig, "https://127.0.0.1:6443", v.tls("server-ca.crt"), v.tls("client-admin"), s.KubeconfigMode)
}

// labelRoles marks the node as RKE2 marks servers that run etcd.
func (v *Server) labelRoles(ctx context.Context) error {
	return v.admin.Do(ctx, "PATCH", "/api/v1/nodes/"+v.s.NodeName, kube.Object{"metadata": map[string]any{
		"labels": map[string]any{"node-role.kubernetes.io/control-plane": "true", "node-role.kubernetes.io/etcd": "true"},
		"annotations": map[string]any{"etcd.rke2.cattle.io/node-name": v.name, "etcd.rke2.cattle.io/node-address": v.s.NodeIP.String(),
			"etcd.rke2.cattle.io/local-snapshots-timestamp": time.Now().UTC().Format(time.RFC3339)},
	}}, nil)
}
