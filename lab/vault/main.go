//go:build minimal

// Command vault-server is the real Vault server of the module in go.mod (`vault-server -config=FILE`): its listener,
// barrier, seals, integrated storage and engines. The module's minimal build leaves the login method of pods out; it is
// added here from its own module.
package main

import (
	"os"

	"github.com/hashicorp/cli"
	credKubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	logicalKv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/plugin"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
)

func main() {
	server := &command.ServerCommand{
		BaseCommand:        &command.BaseCommand{UI: &cli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}},
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		CredentialBackends: map[string]logical.Factory{"plugin": plugin.Factory, "kubernetes": credKubernetes.Factory},
		LogicalBackends:    map[string]logical.Factory{"plugin": plugin.Factory, "kv": logicalKv.Factory},
		PhysicalBackends:   map[string]physical.Factory{"raft": raft.NewRaftBackend},
		ShutdownCh:         command.MakeShutdownCh(),
		SighupCh:           command.MakeSighupCh(),
		SigUSR2Ch:          command.MakeSigUSR2Ch(),
	}
	os.Exit(server.Run(os.Args[1:]))
}
