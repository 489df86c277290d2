package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/pki"
	"opstella.invalid/lab/rke2/internal/server"
	"opstella.invalid/lab/rke2/internal/token"
)

// etcdSnapshot asks the server on this host, as RKE2's command does.
func etcdSnapshot(args []string) error {
	if len(args) == 0 {
		return errors.New("etcd-snapshot needs a subcommand: save, ls, delete or prune")
	}
	operation, args := args[0], args[1:]
	switch operation {
	case "ls", "l":
		operation = "list"
	case "save", "list", "delete", "prune":
	default:
		return fmt.Errorf("No help topic for '%s'", operation) //nolint:staticcheck // the real one's words
	}
	flags := flag.NewFlagSet("etcd-snapshot "+operation, flag.ContinueOnError)
	data := flags.String("data-dir", "/var/lib/rancher/rke2", "folder that holds state")
	address := flags.String("etcd-server", "https://127.0.0.1:9345", "server to ask")
	secret := flags.String("etcd-token", "", "token to use")
	dir := flags.String("dir", "", "folder of the snapshots")
	flags.StringVar(dir, "etcd-snapshot-dir", "", "folder of the snapshots")
	name := flags.String("name", "", "base name (on-demand)")
	retention := flags.Int("snapshot-retention", -1, "number of snapshots to keep")
	flags.IntVar(retention, "etcd-snapshot-retention", -1, "number of snapshots to keep")
	output := flags.String("output", "standard", "standard or json")
	flags.StringVar(output, "o", "standard", "standard or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	request := server.SnapshotRequest{Operation: operation, Dir: *dir}
	if *name != "" {
		request.Names = []string{*name}
	}
	if *retention >= 0 {
		request.Retention = retention
	}
	if operation == "delete" {
		if request.Names = flags.Args(); len(request.Names) == 0 {
			return errors.New("no snapshots given for removal")
		}
	} else if flags.NArg() > 0 {
		return fmt.Errorf("etcd-snapshot %s: unexpected argument %q", operation, flags.Arg(0))
	}
	if *secret == "" {
		text, err := os.ReadFile(filepath.Join(*data, "server", "token"))
		if err != nil {
			return fmt.Errorf("this host has no server's token: %w", err)
		}
		*secret = string(text)
	}
	t, err := token.Parse(*secret)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	supervisor, err := agent.Connect(ctx, *address, t, "server")
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	text, err := supervisor.Call(ctx, http.MethodPost, "/db/snapshot", nil, body)
	if err != nil {
		return fmt.Errorf("etcd-snapshot %s: %w", operation, err)
	}
	var answer server.SnapshotAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		return err
	}
	for _, made := range answer.Created {
		log.Info("Snapshot %s saved.", made.Name)
	}
	for _, gone := range answer.Deleted {
		log.Info("Snapshot %s deleted.", gone)
	}
	if operation == "list" {
		return list(answer.Files, *output)
	}
	return nil
}

func list(files []server.Snapshot, form string) error {
	if form == "json" {
		return json.NewEncoder(os.Stdout).Encode(files)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprint(w, "Name\tLocation\tSize\tCreated\n")
	for _, f := range files {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", f.Name, f.Location, f.Size, f.CreatedAt.Format(time.RFC3339))
	}
	return w.Flush()
}

// certificate lists the certificates on this host with their ends.
func certificate(args []string) error {
	if len(args) != 1 || args[0] != "check" {
		return errors.New("this double knows `certificate check` only; RKE2 itself also rotates")
	}
	var found []string
	for _, root := range []string{"server/tls", "agent"} {
		_ = filepath.Walk(filepath.Join("/var/lib/rancher/rke2", root), func(path string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() && strings.HasSuffix(path, ".crt") {
				found = append(found, path)
			}
			return nil
		})
	}
	if len(found) == 0 {
		return errors.New("no certificates below /var/lib/rancher/rke2")
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		cert, err := pki.ParseCert(bytes.TrimSpace(data))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", path, cert.Subject, cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}
