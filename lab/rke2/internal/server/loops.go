package server

import (
	"context"
	"crypto/sha256"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/kube"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/process"
)

// every calls f at once and then at each interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// deployManifests applies what lies in server/manifests, again whenever a file
// changes. Deleting a file deletes nothing from the cluster, as in RKE2; a
// file NAME.skip beside NAME keeps it from being applied.
func (v *Server) deployManifests(ctx context.Context) {
	if err := v.apply(ctx, "helm.cattle.io resource definitions", []byte(helmDefinitions)); err != nil {
		log.Error("%v", err)
	}
	if slices.Contains(v.s.CNI, "cilium") {
		if err := v.apply(ctx, "cilium.io resource definitions", []byte(ciliumDefinitions)); err != nil {
			log.Error("%v", err)
		}
	}
	if v.s.Profile == "cis" {
		if err := v.apply(ctx, "CIS network policies", []byte(cisPolicies)); err != nil {
			log.Error("%v", err)
		}
	}
	applied := map[string][32]byte{}
	every(ctx, 5*time.Second, func() {
		_ = filepath.WalkDir(v.s.Path("server", "manifests"), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) || exists(path+".skip") {
				return nil
			}
			data, err := os.ReadFile(path)
			digest := sha256.Sum256(data)
			if err != nil || applied[path] == digest || len(strings.TrimSpace(string(data))) == 0 {
				return nil
			}
			if err := v.apply(ctx, path, data); err != nil {
				log.Error("Failed to process config: %v", err)
				return nil
			}
			applied[path] = digest
			log.Info("Applied manifest at %q", path)
			return nil
		})
	})
}

func (v *Server) apply(ctx context.Context, what string, manifest []byte) error {
	_, err := process.Run(ctx, 2*time.Minute, manifest, v.program("kubectl"), "--kubeconfig", v.s.Path("server", "cred", "supervisor.kubeconfig"),
		"apply", "--server-side", "--force-conflicts", "--field-manager=deploy@"+v.s.NodeName, "-f", "-")
	if err != nil {
		return &os.PathError{Op: "apply", Path: what, Err: err}
	}
	return nil
}

// watchNodes forgets the password of a node that is deleted, and takes a
// deleted server out of the etcd cluster, as RKE2 does.
func (v *Server) watchNodes(ctx context.Context) {
	known := map[string]string{} // node name -> etcd member name
	every(ctx, 5*time.Second, func() {
		var list kube.Object
		if err := v.admin.Get(ctx, "/api/v1/nodes", &list); err != nil {
			return
		}
		now := map[string]string{}
		for _, node := range kube.Items(list) {
			now[kube.Text(node, "metadata", "name")] = kube.Text(node, "metadata", "annotations", "etcd.rke2.cattle.io/node-name")
		}
		for name, member := range known {
			if _, there := now[name]; there {
				continue
			}
			err := v.admin.Do(ctx, http.MethodDelete, "/api/v1/namespaces/kube-system/secrets/"+name+passwordSuffix, nil, nil)
			if err != nil && !kube.Is(err, http.StatusNotFound) {
				now[name] = member // try again
				continue
			}
			if member != "" && member != v.name {
				v.removeMember(ctx, member)
			}
			log.Info("Node %s was deleted: its password is forgotten", name)
		}
		known = now
	})
}

func (v *Server) removeMember(ctx context.Context, name string) {
	members, err := v.db.Members(ctx)
	if err != nil {
		log.Error("Removing etcd member %s: %v", name, err)
		return
	}
	for _, m := range members {
		if m.Name != name {
			continue
		}
		if err := v.db.Remove(ctx, m.ID); err != nil {
			log.Error("Removing etcd member %s: %v", name, err)
			return
		}
		log.Info("Removed %s from the etcd cluster, its node was deleted", name)
	}
}
