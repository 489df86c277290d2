package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"opstella.invalid/lab/rke2/internal/log"
)

// Snapshot is one file in the snapshot folder.
type Snapshot struct {
	Name      string    `json:"name"`
	Location  string    `json:"location"`
	Size      int64     `json:"size"`
	CreatedAt time.Time `json:"createdAt"`
}

// SnapshotRequest is what `rke2 etcd-snapshot` asks a server to do.
type SnapshotRequest struct {
	Operation string   `json:"operation"` // save, list, delete, prune
	Names     []string `json:"names,omitempty"`
	Dir       string   `json:"dir,omitempty"`
	Retention *int     `json:"retention,omitempty"`
}

// SnapshotAnswer lists what was made or removed, or what there is.
type SnapshotAnswer struct {
	Created []Snapshot `json:"created,omitempty"`
	Deleted []string   `json:"deleted,omitempty"`
	Files   []Snapshot `json:"files,omitempty"`
}

func (u *supervisor) snapshot(w http.ResponseWriter, r *http.Request) {
	var request SnapshotRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := u.v.handleSnapshot(r.Context(), request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, out)
}

func (v *Server) handleSnapshot(ctx context.Context, request SnapshotRequest) (SnapshotAnswer, error) {
	var out SnapshotAnswer
	folder := v.s.SnapshotDir
	if request.Dir != "" {
		folder = request.Dir
	}
	retention := v.s.SnapshotRetention
	if request.Retention != nil {
		retention = *request.Retention
	}
	base := "on-demand"
	if len(request.Names) > 0 {
		base = request.Names[0]
	}
	if base != filepath.Base(base) {
		return out, fmt.Errorf("snapshot name %q must not hold a path", base)
	}
	var err error
	switch request.Operation {
	case "save":
		var made Snapshot
		if made, err = v.saveSnapshot(ctx, folder, base); err == nil {
			out.Created = []Snapshot{made}
		}
	case "list":
		out.Files, err = listSnapshots(folder)
	case "delete":
		for _, name := range request.Names {
			if name != filepath.Base(name) {
				return out, fmt.Errorf("snapshot name %q must not hold a path", name)
			}
			if err := os.Remove(filepath.Join(folder, name)); err != nil {
				return out, fmt.Errorf("snapshot %s: %w", name, err)
			}
			out.Deleted = append(out.Deleted, name)
		}
	case "prune":
		out.Deleted, err = pruneSnapshots(folder, base+"-"+v.s.NodeName, retention)
	default:
		err = fmt.Errorf("unknown snapshot operation %q", request.Operation)
	}
	return out, err
}

func (v *Server) saveSnapshot(ctx context.Context, folder, base string) (Snapshot, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return Snapshot{}, err
	}
	name := fmt.Sprintf("%s-%s-%d", base, v.s.NodeName, time.Now().Unix())
	path := filepath.Join(folder, name)
	size, err := v.db.Snapshot(ctx, path)
	if err != nil {
		return Snapshot{}, err
	}
	log.Info("Saved etcd snapshot %s (%d bytes)", path, size)
	return Snapshot{name, "file://" + path, size, time.Now().UTC().Truncate(time.Second)}, nil
}

func listSnapshots(folder string) ([]Snapshot, error) {
	entries, err := os.ReadDir(folder)
	if os.IsNotExist(err) {
		return []Snapshot{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := []Snapshot{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.IsDir() || strings.HasSuffix(e.Name(), ".part") {
			continue
		}
		out = append(out, Snapshot{e.Name(), "file://" + filepath.Join(folder, e.Name()), info.Size(), info.ModTime().UTC().Truncate(time.Second)})
	}
	return out, nil
}

// pruneSnapshots keeps the newest snapshots whose names begin with prefix; a
// retention of 0 keeps all.
func pruneSnapshots(folder, prefix string, retention int) ([]string, error) {
	all, err := listSnapshots(folder)
	if err != nil || retention < 1 {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s Snapshot) bool { return !strings.HasPrefix(s.Name, prefix) })
	// Names end in the Unix time, of equal length for centuries.
	slices.SortFunc(all, func(a, b Snapshot) int { return strings.Compare(b.Name, a.Name) })
	var deleted []string
	for _, s := range all[min(retention, len(all)):] {
		if err := os.Remove(filepath.Join(folder, s.Name)); err != nil {
			return deleted, err
		}
		deleted = append(deleted, s.Name)
	}
	return deleted, nil
}

func (v *Server) scheduleSnapshots(ctx context.Context) {
	if v.s.Values.Bool("etcd-disable-snapshots") {
		return
	}
	for {
		next := v.s.Snapshots.Next(time.Now())
		if next.IsZero() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		if _, err := v.saveSnapshot(ctx, v.s.SnapshotDir, v.s.SnapshotName); err != nil {
			log.Error("Scheduled etcd snapshot: %v", err)
			continue
		}
		if _, err := pruneSnapshots(v.s.SnapshotDir, v.s.SnapshotName+"-"+v.s.NodeName, v.s.SnapshotRetention); err != nil {
			log.Error("Pruning etcd snapshots: %v", err)
		}
	}
}
