// Command image packs folders as a container image for several systems: an OCI image layout in a tar file. Each folder
// is the root of one system's containers. The same files give the same bytes: all entries have the time in
// $SOURCE_DATE_EPOCH, and belong to root.
package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, epoch string) error {
	if len(args) < 4 {
		return errors.New("usage: image VERSION REVISION FILE.tar GOOS/GOARCH=FOLDER [GOOS/GOARCH=FOLDER ...]")
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH must be seconds since 1970: %w", err)
	}
	scratch, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	b := builder{version: args[0], revision: args[1], changed: time.Unix(seconds, 0).UTC(), scratch: scratch}
	return errors.Join(b.write(args[2], args[3:]), os.RemoveAll(scratch))
}

// A builder makes the image of one version.
type builder struct {
	version, revision string
	changed           time.Time // of all files and of the image
	scratch           string    // a folder for temporary files
}

// write makes the image with a root for each of the targets, which are of the form GOOS/GOARCH=FOLDER.
func (b builder) write(path string, targets []string) error {
	index, older := mutate.AppendManifests(empty.Index), tarball.Manifest{}
	for _, target := range targets {
		system, folder, _ := strings.Cut(target, "=")
		platform, err := v1.ParsePlatform(system)
		if err != nil {
			return err
		}
		image, err := b.image(folder, *platform)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		one, err := describe(image, b.name()+"-"+platform.Architecture)
		if err != nil {
			return err
		}
		older = append(older, one)
	}
	folder := filepath.Join(b.scratch, "layout")
	if err := b.layOut(folder, index, older); err != nil {
		return err
	}
	return packFile(path, folder, b.changed)
}

// layOut writes the image to folder.
func (b builder) layOut(folder string, index v1.ImageIndex, older tarball.Manifest) error {
	files, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	// containerd, Docker and Podman use the second name, and other tools the first one.
	err = files.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": b.name(),
		"io.containerd.image.name":          "docker.io/library/" + b.name(),
	}))
	if err != nil {
		return err
	}
	list, err := json.Marshal(older)
	if err != nil {
		return err
	}
	return files.WriteFile("manifest.json", list, 0o644)
}

// name returns the name of the image with its tag. A tag must not contain "+".
func (b builder) name() string {
	return "lictor:" + strings.ReplaceAll(strings.TrimPrefix(b.version, "v"), "+", "-")
}

// describe returns what docker load reads if Docker does not use containerd to store images: until Docker 29 by
// default. Such a Docker does not read index.json, and loads the images of all platforms.
func describe(image v1.Image, name string) (d tarball.Descriptor, err error) {
	config, err := image.ConfigName()
	if err != nil {
		return d, err
	}
	layers, err := image.Layers()
	if err != nil {
		return d, err
	}
	d.Config, d.RepoTags = blob(config), []string{name}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return d, err
		}
		d.Layers = append(d.Layers, blob(digest))
	}
	return d, nil
}

// blob returns the path of a blob in the layout.
func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// image returns the image of one platform. Its only layer has the files of folder.
func (b builder) image(folder string, platform v1.Platform) (v1.Image, error) {
	tar := filepath.Join(b.scratch, platform.OS+"-"+platform.Architecture+".tar")
	if err := packFile(tar, folder, b.changed); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromFile(tar, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, Created: v1.Time{Time: b.changed},
		RootFS: v1.RootFS{Type: "layers"}, Config: b.config(),
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer: layer, History: v1.History{Created: v1.Time{Time: b.changed}, CreatedBy: "make release"},
	})
}

// config says how a container runs lictor, unless its user says otherwise.
func (b builder) config() v1.Config {
	return v1.Config{
		User:       "65534:65534",
		Entrypoint: []string{"/usr/bin/lictor"},
		Cmd:        []string{"run", "-config", "/etc/lictor"},
		Env:        []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		StopSignal: "SIGTERM",
		// OCI's specification has no health check. Docker obeys this one; Podman and Kubernetes ignore it.
		Healthcheck: &v1.HealthConfig{
			Test: []string{"CMD", "/usr/bin/lictor", "status"}, Interval: 30 * time.Second, Timeout: 10 * time.Second,
			StartPeriod: 10 * time.Second, Retries: 3,
		},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "lictor",
			"org.opencontainers.image.description": "Consul services on stable local ports",
			"org.opencontainers.image.version":     b.version,
			"org.opencontainers.image.revision":    b.revision,
			"org.opencontainers.image.created":     b.changed.Format(time.RFC3339),
			"org.opencontainers.image.licenses":    "Apache-2.0",
		},
	}
}
