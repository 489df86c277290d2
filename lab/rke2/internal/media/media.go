// Package media unpacks the programs that the double's image tarballs hold in
// place of container images.
package media

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Manifest is the first member of an image tarball, manifest.json: what the
// tarball holds. Files for agents come first, so an agent reads no further.
type Manifest struct {
	Image string `json:"image"` // core, calico …
	Key   string `json:"key"`   // changes with the content
	Files []File `json:"files"` // in the order of the tarball
}

// File is one program or data file of an image tarball.
type File struct {
	Name  string `json:"name"`
	Where string `json:"where"` // "server" or "agent": only these unpack it; "": both
}

// Find returns the tarball of an image in folder, in any of the formats that
// RKE2 imports, or an error that says what is missing.
func Find(folder, image string) (string, error) {
	for _, name := range []string{"rke2-images-" + image, "rke2-images"} {
		for _, suffix := range []string{".tar.zst", ".tar.gz", ".tar"} {
			path := filepath.Join(folder, name+".linux-amd64"+suffix)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("no images for %s: put rke2-images-%s.linux-amd64.tar.zst into %s (there is no registry to pull from)", image, image, folder)
}

func open(path string) (*tar.Reader, func(), error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case strings.HasSuffix(path, ".zst"):
		decoder, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			file.Close()
			return nil, nil, err
		}
		return tar.NewReader(decoder), func() { decoder.Close(); file.Close() }, nil
	case strings.HasSuffix(path, ".gz"):
		decoder, err := gzip.NewReader(file)
		if err != nil {
			file.Close()
			return nil, nil, err
		}
		return tar.NewReader(decoder), func() { file.Close() }, nil
	}
	return tar.NewReader(file), func() { file.Close() }, nil
}

// Unpack makes into/<key>/ hold the tarball's files for a server or an agent
// and returns that folder. A folder that is already complete is left alone;
// folders of other keys are removed.
func Unpack(path, into string, server bool) (string, error) {
	reader, done, err := open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer done()
	header, err := reader.Next()
	if err != nil || header.Name != "manifest.json" {
		return "", fmt.Errorf("%s: not one of this RKE2 double's image tarballs: its first member is not manifest.json", path)
	}
	var manifest Manifest
	if err := json.NewDecoder(reader).Decode(&manifest); err != nil {
		return "", fmt.Errorf("%s: manifest.json: %w", path, err)
	}
	if manifest.Key == "" || strings.ContainsAny(manifest.Key, "/.") {
		return "", fmt.Errorf("%s: manifest.json: key %q is not usable as a folder name", path, manifest.Key)
	}
	own := "agent"
	if server {
		own = "server"
	}
	wanted := map[string]bool{}
	for _, file := range manifest.Files {
		if file.Where == "" || file.Where == own {
			wanted[file.Name] = true
		}
	}
	target := filepath.Join(into, manifest.Key)
	marker := filepath.Join(target, ".complete-"+own)
	if _, err := os.Stat(marker); err == nil {
		return target, nil
	}
	for left := len(wanted); left > 0; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return "", fmt.Errorf("%s ends before all files of its manifest came", path)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		if !wanted[header.Name] {
			continue
		}
		left--
		if !filepath.IsLocal(header.Name) || header.Typeflag != tar.TypeReg {
			return "", fmt.Errorf("%s: member %q is no plain file", path, header.Name)
		}
		if err := write(filepath.Join(target, header.Name), reader, os.FileMode(header.Mode)&0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		return "", err
	}
	folders, err := os.ReadDir(into)
	if err != nil {
		return "", err
	}
	for _, folder := range folders {
		if folder.IsDir() && folder.Name() != manifest.Key {
			_ = os.RemoveAll(filepath.Join(into, folder.Name()))
		}
	}
	return target, nil
}

// Peek returns the manifest of an image tarball.
func Peek(path string) (Manifest, error) {
	var manifest Manifest
	reader, done, err := open(path)
	if err != nil {
		return manifest, err
	}
	defer done()
	header, err := reader.Next()
	if err != nil || header.Name != "manifest.json" {
		return manifest, fmt.Errorf("%s: not one of this RKE2 double's image tarballs: its first member is not manifest.json", path)
	}
	return manifest, json.NewDecoder(reader).Decode(&manifest)
}

func write(path string, from io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := path + ".part"
	file, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, from); err != nil {
		file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// Pack writes an image tarball (zstd, fastest level) from files on disk:
// source by name inside the tarball. It is what builds the media.
func Pack(out string, manifest Manifest, source map[string]string) error {
	slices.SortStableFunc(manifest.Files, func(a, b File) int {
		return strings.Compare(a.Where, b.Where) // "" before "agent" before "server"
	})
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	encoder, err := zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	writer := tar.NewWriter(encoder)
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := writer.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := writer.Write(text); err != nil {
		return err
	}
	for _, member := range manifest.Files {
		if err := add(writer, member.Name, source[member.Name]); err != nil {
			return err
		}
	}
	return errors.Join(writer.Close(), encoder.Close(), file.Close())
}

func add(writer *tar.Writer, name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := writer.WriteHeader(&tar.Header{Name: name, Mode: int64(info.Mode().Perm() & 0o755), Size: info.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(writer, file)
	return err
}
