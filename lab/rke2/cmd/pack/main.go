// Command pack writes the double's image tarballs.
//
//	pack OUT.tar.zst IMAGE [WHERE:NAME=FILE ...]
//
// WHERE is "server" or "agent" (only these unpack the file) or "all"; NAME is
// the path inside the tarball.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"opstella.invalid/lab/rke2/internal/media"
)

func main() {
	if err := pack(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: pack OUT.tar.zst IMAGE [WHERE:NAME=FILE ...]")
	}
	manifest, source, digest := media.Manifest{Image: args[1]}, map[string]string{}, sha256.New()
	add := func(where, name, file string) error {
		if where == "all" {
			where = ""
		}
		manifest.Files = append(manifest.Files, media.File{Name: name, Where: where})
		source[name] = file
		content, err := os.Open(file)
		if err != nil {
			return err
		}
		defer content.Close()
		fmt.Fprintf(digest, "%s\x00%s\x00", name, where)
		_, err = io.Copy(digest, content)
		return err
	}
	for _, arg := range args[2:] {
		where, rest, found := strings.Cut(arg, ":")
		name, file, named := strings.Cut(rest, "=")
		if !found || !named || where != "server" && where != "agent" && where != "all" {
			return fmt.Errorf("%q is not of the form WHERE:NAME=FILE with WHERE server, agent or all", arg)
		}
		if err := add(where, name, file); err != nil {
			return err
		}
	}
	manifest.Key = hex.EncodeToString(digest.Sum(nil))[:16]
	return media.Pack(args[0], manifest, source)
}
