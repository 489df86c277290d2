package server

import (
	"context"
	"fmt"
	"os"
	"time"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/etcd"
	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/process"
	"opstella.invalid/lab/rke2/internal/settings"
)

// Reset makes this server the only member of its etcd cluster and ends, as
// `rke2 server --cluster-reset` does. Restoring a snapshot is not part of the
// double.
func Reset(ctx context.Context, s *settings.Settings, version string) error {
	if s.Values.String("cluster-reset-restore-path", "") != "" {
		return fmt.Errorf("cluster-reset-restore-path: RKE2 restores snapshots, its double in the lab does not")
	}
	if !exists(s.Path("server", "db", "etcd", "member")) {
		return fmt.Errorf("cluster-reset: %s holds no etcd member to reset", s.Path("server", "db", "etcd"))
	}
	v := &Server{s: s, version: version}
	var err error
	if v.programs, err = agent.Unpack(s); err != nil {
		return err
	}
	if err := v.prepare(); err != nil {
		return err
	}
	config, err := kube.TLS(v.tls("etcd", "server-ca.crt"), v.tls("etcd", "client"))
	if err != nil {
		return err
	}
	v.db = etcd.New(config, "https://127.0.0.1:2379")
	if v.name, err = v.memberName(); err != nil {
		return err
	}
	peer := fmt.Sprintf("https://%s:2380", s.NodeIP)
	if err := v.writeEtcdConfig(v.name+"="+peer, "new", peer); err != nil {
		return err
	}
	path := s.Path("server", "db", "etcd", "config")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, "force-new-cluster: true\n"...), 0o600); err != nil {
		return err
	}
	v.etcdChild = process.Start(process.Spec{Name: "etcd", Path: v.program("etcd"), LogDir: s.Path("server", "logs"), Patience: 3 * time.Second, Args: []string{"--config-file=" + path}})
	defer v.etcdChild.Stop()
	if err := settings.Retry(ctx.Done(), 500*time.Millisecond, func(err error) { log.Info("Waiting for etcd: %v", err) }, func() error { return v.db.Healthy(ctx) }); err != nil {
		return err
	}
	log.Info("Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes")
	return nil
}
