package media

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func pack(t *testing.T, folder, image, key string, where map[string]string) string {
	t.Helper()
	manifest, source := Manifest{Image: image, Key: key}, map[string]string{}
	for name, w := range where {
		manifest.Files = append(manifest.Files, File{name, w})
		source[name] = filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(source[name], []byte("content of "+name+" "+key), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(folder, "rke2-images-"+image+".linux-amd64.tar.zst")
	if err := Pack(path, manifest, source); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnpackByRole(t *testing.T) {
	images, data := t.TempDir(), t.TempDir()
	files := map[string]string{"bin/api": "server", "bin/both": "", "bin/ingress": "agent"}
	path := pack(t, images, "core", "one", files)
	for server, want := range map[bool]string{false: "bin/both bin/ingress", true: "bin/api bin/both"} {
		into := filepath.Join(data, map[bool]string{false: "agent", true: "server"}[server])
		folder, err := Unpack(path, into, server)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range []string{"bin/api", "bin/both", "bin/ingress"} {
			if info, err := os.Stat(filepath.Join(folder, name)); err == nil {
				got = append(got, name)
				if info.Mode().Perm() != 0o755 {
					t.Errorf("%s has mode %o", name, info.Mode())
				}
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("server %v has %v, want %s", server, got, want)
		}
	}
}

func TestOtherContentReplaces(t *testing.T) {
	images, data := t.TempDir(), t.TempDir()
	first, err := Unpack(pack(t, images, "core", "one", map[string]string{"a": ""}), data, true)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Unpack(pack(t, images, "core", "two", map[string]string{"a": ""}), data, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first); err == nil || first == second {
		t.Error("the former content is still there")
	}
}

func TestFind(t *testing.T) {
	images := t.TempDir()
	if _, err := Find(images, "calico"); err == nil || !strings.Contains(err.Error(), "rke2-images-calico.linux-amd64.tar.zst") {
		t.Errorf("got %v", err)
	}
	path := pack(t, images, "calico", "one", nil)
	if got, err := Find(images, "calico"); err != nil || got != path {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestOthersTarballsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rke2-images-core.linux-amd64.tar")
	if err := os.WriteFile(path, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(path, t.TempDir(), true); err == nil || !strings.Contains(err.Error(), "not one of this RKE2 double's") {
		t.Errorf("got %v", err)
	}
}
