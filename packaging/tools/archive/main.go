// Command archive packs a folder into a .tar.gz or a .zip. The same files give the same bytes: all entries have the
// time in $SOURCE_DATE_EPOCH, and no owner.
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

// An add writes a file with a name, mode and content to an archive.
type add func(name string, info fs.FileInfo, content io.Reader) error

func run(args []string, epoch string) error {
	if len(args) != 2 {
		return errors.New("usage: archive FOLDER FILE.tar.gz|FILE.zip")
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH must be seconds since 1970: %w", err)
	}
	out, err := os.Create(args[1])
	if err != nil {
		return err
	}
	pack := packTar
	if strings.HasSuffix(args[1], ".zip") {
		pack = packZip
	}
	return errors.Join(pack(out, args[0], time.Unix(seconds, 0).UTC()), out.Close())
}

func packTar(out io.Writer, folder string, changed time.Time) error {
	compressed, _ := gzip.NewWriterLevel(out, gzip.BestCompression) // the level is a valid one
	archive := tar.NewWriter(compressed)
	err := walk(folder, func(name string, info fs.FileInfo, content io.Reader) error {
		header := &tar.Header{Name: name, Mode: mode(info), Size: info.Size(), ModTime: changed, Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	})
	return errors.Join(err, archive.Close(), compressed.Close())
}

func packZip(out io.Writer, folder string, changed time.Time) error {
	archive := zip.NewWriter(out)
	err := walk(folder, func(name string, info fs.FileInfo, content io.Reader) error {
		header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: changed}
		header.SetMode(fs.FileMode(mode(info)))
		file, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return err
	})
	return errors.Join(err, archive.Close())
}

// mode does not depend on the umask: a file that its owner can execute is for all users to execute.
func mode(info fs.FileInfo) int64 {
	if info.Mode()&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

// walk adds all files in folder, by the order of their names. Their names in the archive begin with the folder's name.
func walk(folder string, add add) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(filepath.Dir(folder), path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(add(filepath.ToSlash(name), info, file), file.Close())
	})
}
