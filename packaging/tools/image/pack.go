package main

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// packFile writes all folders and files in root to a tar file, by the order of their names. Their names in the tar are
// relative to root.
func packFile(path, root string, changed time.Time) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return add(archive, filepath.ToSlash(name), path, changed)
	})
	return errors.Join(err, archive.Close(), out.Close())
}

func add(archive *tar.Writer, name, path string, changed time.Time) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: mode(info), ModTime: changed, Typeflag: tar.TypeReg, Size: info.Size()}
	if info.IsDir() {
		header.Name, header.Typeflag, header.Size = name+"/", tar.TypeDir, 0
		return archive.WriteHeader(header)
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return errors.Join(err, file.Close())
}

// mode does not depend on the umask. A folder with the sticky bit is for all users to write, as /tmp is. A file that
// its owner can execute is for all users to execute.
func mode(info fs.FileInfo) int64 {
	switch {
	case info.IsDir() && info.Mode()&fs.ModeSticky != 0:
		return 0o1777
	case info.IsDir() || info.Mode()&0o100 != 0:
		return 0o755
	}
	return 0o644
}
