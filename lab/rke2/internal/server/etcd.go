package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/etcd"
	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/pki"
	"opstella.invalid/lab/rke2/internal/process"
	"opstella.invalid/lab/rke2/internal/settings"
)

// startEtcd starts the member and waits until it answers. With join set, the
// member first enters the cluster as a learner and is given its vote when it
// has caught up; without, it is the first member or was one before.
func (v *Server) startEtcd(ctx context.Context, join *agent.Supervisor) error {
	s := v.s
	config, err := kube.TLS(v.tls("etcd", "server-ca.crt"), v.tls("etcd", "client"))
	if err != nil {
		return err
	}
	v.db = etcd.New(config, "https://127.0.0.1:2379")
	if v.name, err = v.memberName(); err != nil {
		return err
	}
	peer := fmt.Sprintf("https://%s:2380", s.NodeIP)
	cluster, state := v.name+"="+peer, "new"
	if known, err := v.knownCluster(); err != nil {
		return err
	} else if join == nil && known != "" {
		cluster, state = known, "existing"
	}
	if join != nil {
		say := func(err error) { log.Info("Waiting to join the etcd cluster: %v", err) }
		if err := settings.Retry(ctx.Done(), 2*time.Second, say, func() error {
			members, err := v.clusterMembers(ctx, join)
			if err != nil {
				return err
			}
			cluster, err = v.enter(ctx, etcd.New(config, clientURLs(members)...), members, peer)
			return err
		}); err != nil {
			return err
		}
		state = "existing"
		log.Info("Adding member %s to etcd cluster [%s]", v.name, cluster)
	}
	if err := v.writeEtcdConfig(cluster, state, peer); err != nil {
		return err
	}
	v.etcdChild = process.Start(process.Spec{
		Name: "etcd", Path: v.program("etcd"), LogDir: s.Path("server", "logs"), Patience: 3 * time.Second,
		Env: []string{"GOGC=50", "GOMEMLIMIT=256MiB"}, Args: []string{"--config-file=" + s.Path("server", "db", "etcd", "config")},
	})
	return settings.Retry(ctx.Done(), 500*time.Millisecond, func(err error) { log.Info("Waiting for etcd: %v", err) }, func() error {
		err := v.db.Healthy(ctx)
		if err == nil {
			return nil
		}
		if others := voters(cluster, peer); len(others) > 0 {
			if promote := v.promote(ctx, etcd.New(config, others...), peer); promote != nil {
				return fmt.Errorf("%w; %w", err, promote)
			}
		}
		return err
	})
}

// knownCluster is the initial-cluster value that this member joined with. A
// learner cannot list the members, so this is where it finds the others.
func (v *Server) knownCluster() (string, error) {
	path := v.s.Path("server", "db", "etcd", "config")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var config struct {
		Cluster string `yaml:"initial-cluster"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return config.Cluster, nil
}

// voters are the client addresses of the other members of an initial-cluster
// value: the same hosts, port 2379.
func voters(cluster, ownPeer string) []string {
	var out []string
	for _, part := range strings.Split(cluster, ",") {
		if _, url, found := strings.Cut(part, "="); found && url != ownPeer {
			out = append(out, strings.TrimSuffix(url, ":2380")+":2379")
		}
	}
	return out
}

// promote gives this member its vote if it is a learner.
func (v *Server) promote(ctx context.Context, others *etcd.Client, peer string) error {
	members, err := others.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if !m.IsLearner || !slices.Contains(m.PeerURLs, peer) {
			continue
		}
		if err := others.Promote(ctx, m.ID); err != nil {
			return fmt.Errorf("learner %s is not promoted yet: %w", v.name, err)
		}
		log.Info("Promoted learner %s to a voting member of the etcd cluster", v.name)
	}
	return nil
}

// enter adds this member as a learner and returns the initial-cluster value.
// A member that an interrupted try left under the same address is reused when
// it never started, and replaced when it did: its data is gone.
func (v *Server) enter(ctx context.Context, voters *etcd.Client, members []etcd.Member, peer string) (string, error) {
	for _, m := range members {
		if !slices.Contains(m.PeerURLs, peer) {
			continue
		}
		if m.Name == "" {
			return initialCluster(members, v.name, peer), nil
		}
		if err := voters.Remove(ctx, m.ID); err != nil {
			return "", fmt.Errorf("remove the former member %s at %s: %w", m.Name, peer, err)
		}
	}
	all, err := voters.AddLearner(ctx, peer)
	if err != nil {
		var refusal *etcd.Refusal
		if errors.As(err, &refusal) && strings.Contains(refusal.Message, "too many learner") {
			return "", errors.New("another server is joining; one joins at a time")
		}
		return "", err
	}
	return initialCluster(all, v.name, peer), nil
}

func initialCluster(members []etcd.Member, name, peer string) string {
	var parts []string
	for _, m := range members {
		for _, url := range m.PeerURLs {
			if url == peer {
				parts = append(parts, name+"="+url)
			} else if m.Name != "" {
				parts = append(parts, m.Name+"="+url)
			}
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// clientURLs lists the client addresses of all voting members.
func clientURLs(members []etcd.Member) []string {
	var urls []string
	for _, m := range members {
		if m.IsLearner {
			continue
		}
		for _, url := range m.ClientURLs {
			if !strings.Contains(url, "127.0.0.1") {
				urls = append(urls, url)
			}
		}
	}
	return urls
}

func (v *Server) clusterMembers(ctx context.Context, join *agent.Supervisor) ([]etcd.Member, error) {
	var info struct{ Members []etcd.Member }
	if err := join.JSON(ctx, "/db/info", &info); err != nil {
		return nil, err
	}
	return info.Members, nil
}

// memberName is NODE-XXXXXXXX, kept beside the data as RKE2 does.
func (v *Server) memberName() (string, error) {
	path := v.s.Path("server", "db", "etcd", "name")
	data, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random)
	name := v.s.NodeName + "-" + hex.EncodeToString(random)
	return name, pki.WriteFile(path, []byte(name), 0o600)
}

func (v *Server) writeEtcdConfig(cluster, state, peer string) error {
	s := v.s
	client := fmt.Sprintf("https://%s:2379", s.NodeIP)
	metrics := "http://127.0.0.1:2381"
	if s.Values.Bool("etcd-expose-metrics") {
		metrics += fmt.Sprintf(",http://%s:2381", s.NodeIP)
	}
	security := func(ca, leaf string) map[string]any {
		return map[string]any{"cert-file": v.tls("etcd", leaf+".crt"), "key-file": v.tls("etcd", leaf+".key"), "client-cert-auth": true, "trusted-ca-file": v.tls("etcd", ca+".crt")}
	}
	config := map[string]any{
		"name": v.name, "data-dir": s.Path("server", "db", "etcd"),
		"listen-client-urls": "https://127.0.0.1:2379," + client, "advertise-client-urls": client,
		"listen-peer-urls": "https://127.0.0.1:2380," + peer, "initial-advertise-peer-urls": peer, "listen-metrics-urls": metrics,
		"client-transport-security": security("server-ca", "server-client"), "peer-transport-security": security("peer-ca", "peer-server-client"),
		"initial-cluster": cluster, "initial-cluster-state": state, "heartbeat-interval": 500, "election-timeout": 5000,
		"snapshot-count": 5000, "logger": "zap", "log-level": "warn", "log-outputs": []string{"stderr"},
		// The lab does without surviving a power cut: twelve members share one disk.
		"unsafe-no-fsync": true,
	}
	for _, arg := range s.Values["etcd-arg"] {
		key, value, _ := strings.Cut(arg, "=")
		var typed any
		if yaml.Unmarshal([]byte(value), &typed) != nil {
			typed = value
		}
		config[key] = typed
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return pki.WriteFile(s.Path("server", "db", "etcd", "config"), text, 0o600)
}
