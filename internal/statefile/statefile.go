// Package statefile reads and writes the files in which Lictor keeps what should survive a restart.
//
//	err := statefile.Replace(dir, "ports.saved", statefile.Encode("lictor-ports", 1, body))
//	body, err := statefile.Decode("lictor-ports", 1, file)
//
// The first line of a file has a mark for its kind, the version of its format, and a checksum of the rest, which is the
// body. So a reader notices a file that is damaged, comes from another version, or is not a file of Lictor.
package statefile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// Errors of Decode. A reader may wrap them in its own errors about the body.
var (
	ErrForeign = errors.New("not a file of this part of lictor's state")
	ErrDamaged = errors.New("damaged: the checksum does not match")
)

// Encode returns the content of a file with a body. The mark must not have spaces, and the version is at least 1.
func Encode(mark string, version int, body []byte) []byte {
	return append(fmt.Appendf(nil, "%s %d %x\n", mark, version, sha256.Sum256(body)), body...)
}

// Decode returns the body of a file. The error is or wraps ErrForeign or ErrDamaged, or names the file's version if
// that is another one.
func Decode(mark string, version int, file []byte) ([]byte, error) {
	head, body, found := bytes.Cut(file, []byte("\n"))
	fields := bytes.Fields(head)
	if !found || len(fields) < 2 || string(fields[0]) != mark {
		return nil, ErrForeign
	}
	has, err := strconv.Atoi(string(fields[1]))
	switch {
	case err != nil || has < 1:
		return nil, ErrForeign
	case has != version:
		return nil, fmt.Errorf("the file has version %d, this lictor reads version %d", has, version)
	case len(fields) != 3 || string(fields[2]) != fmt.Sprintf("%x", sha256.Sum256(body)):
		return nil, ErrDamaged
	}
	return body, nil
}

// Replace replaces the content of the file called name in the folder dir, which it creates if necessary. Even after a
// power cut, the file is complete, with either the old or the new content.
func Replace(dir, name string, content []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	temporary := path + ".new"
	// A crash may have left the temporary file behind, with any mode.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncFolder(dir)
}

// syncFolder makes a rename in dir durable. syncFolder does nothing on Windows, which has no such call.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
