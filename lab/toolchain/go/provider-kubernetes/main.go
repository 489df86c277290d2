// Command pulumi-resource-kubernetes serves the upstream provider with its own schema.
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
)

// Both files are copied from the upstream module when this is built.

//go:embed schema.json
var schema []byte

//go:embed mapping.json
var mapping []byte

func main() { provider.Serve("kubernetes", "4.25.0", schema, mapping) }
