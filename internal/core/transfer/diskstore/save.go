package diskstore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"tallow/internal/core/chunk"
)

// Entry is a file to Save, or a folder.
type Entry struct {
	Path     string    // made safe by chunk.SafePaths
	Modified time.Time // zero: unknown
	Data     io.Reader // nil: a folder
}

// Save puts files into a directory, with the folders of their paths and their times of modification. What is there already is never
// overwritten: whoever comes to a name that is taken gets a number. Nothing is written outside of the directory, whatever links lie in it.
func Save(directory string, entries []Entry) error {
	root, err := os.OpenRoot(directory)
	if err != nil {
		return wrap("save", err)
	}
	defer root.Close()
	folders := map[string]string{".": "."} // where they are
	var folder func(p string) (string, error)
	folder = func(p string) (string, error) {
		if at, ok := folders[p]; ok {
			return at, nil
		}
		parent, err := folder(path.Dir(p))
		if err != nil {
			return "", err
		}
		at, err := vacant(path.Join(parent, path.Base(p)), func(at string) error {
			err := root.Mkdir(at, 0o777)
			if info, statErr := root.Stat(at); errors.Is(err, fs.ErrExist) && statErr == nil && info.IsDir() {
				return nil
			}
			return err
		})
		folders[p] = at
		return at, err
	}
	var made []Entry // folders whose time is set at the end: what is put into one changes it
	for _, e := range entries {
		if e.Data == nil {
			at, err := folder(e.Path)
			if err != nil {
				return wrap("save", err)
			}
			made = append(made, Entry{Path: at, Modified: e.Modified})
			continue
		}
		parent, err := folder(path.Dir(e.Path))
		if err != nil {
			return wrap("save", err)
		}
		var file *os.File
		at, err := vacant(path.Join(parent, path.Base(e.Path)), func(at string) (err error) {
			file, err = root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			return err
		})
		if err != nil {
			return wrap("save", err)
		}
		_, err = io.Copy(file, e.Data)
		if err = errors.Join(err, file.Close()); err == nil {
			err = touch(root, at, e.Modified)
		}
		if err != nil {
			root.Remove(at) // it is ours, and not whole
			return wrap("save", err)
		}
	}
	for _, e := range made {
		if err := touch(root, e.Path, e.Modified); err != nil {
			return wrap("save", err)
		}
	}
	return nil
}

// vacant makes a file or folder under the first of a path's numbered forms that nothing has.
func vacant(p string, create func(string) error) (string, error) {
	at := p
	for n := 2; ; n++ {
		if err := create(at); !errors.Is(err, fs.ErrExist) {
			return at, err
		}
		at = chunk.Numbered(p, n)
	}
}

func touch(root *os.Root, at string, modified time.Time) error {
	if modified.IsZero() {
		return nil
	}
	return root.Chtimes(at, modified, modified)
}
