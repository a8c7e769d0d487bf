package mysql

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"keepset/internal/dbdump/mysql/xbstream"
	"keepset/internal/filetree"
	"keepset/internal/record"
)

const (
	// smallFile is how many bytes of a file are held back in the hope that it ends: then it goes into the archive that
	// small files share, whose headers want to know the size. A larger one gets a stream of its own.
	smallFile = 1 << 20
	// mostPatch bounds what is written into a file at a place that has been sent already. It is a number in a header.
	mostPatch = 64 << 10
	// mostOpen bounds the files that are on their way at once, each of which may be held back.
	mostOpen = 256
	// The stream says nothing of owners and modes; these are those of the server's own.
	fileMode, directoryMode = 0o660, 0o700
	// asideDirectory holds files whose name an earlier one had. No database can be called so.
	asideDirectory = "#keepset"
)

// fileSet writes the files of a stream to a sink. They come in pieces that alternate, of sizes that
// nobody announces; and a file that has come may be renamed, removed or sent anew when its table is changed meanwhile.
// So what is stored has a name of its own, and the stream namesStream says where that is not the file's in the end.
type fileSet struct {
	ctx  context.Context //nolint:containedctx // of the one copy, as in filetree.Writer
	sink filetree.Sink
	tree *filetree.Writer
	// directories that are in the tree.
	directories map[string]bool
	// stored are the names that are taken, in the tree or as a stream.
	stored map[string]bool
	// files are those that exist now: their stored names by their paths.
	files map[string]string
	open  map[string]*openFile
	// kept is what we read ourselves, by path.
	kept    map[string][]byte
	keep    func(path string) bool
	arrived func(path string) error // is called for what is kept
	// engines are those that the definitions of tables name, by stored names.
	engines map[string]byte
	patches []storedName
	large   []record.Object
	bytes   int64
}

// openFile is a file on its way.
type openFile struct {
	stored string
	// size is what has come, at where the next payload goes.
	size, at int64
	// small is its content, until there is too much of it for that and stream takes over.
	small  []byte
	stream filetree.Stream
	data   string // the stream's name
}

// storedName is one line of namesStream: a stored file whose path is another one in the end, or that is none ("": it was
// taken back), or that has other bytes at an offset.
type storedName struct {
	Stored string `json:"stored"`
	Path   string `json:"path,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

func newFileSet(ctx context.Context, sink filetree.Sink, keep func(string) bool, arrived func(string) error) (*fileSet, error) {
	f := &fileSet{
		ctx: ctx, sink: sink, directories: map[string]bool{}, stored: map[string]bool{}, files: map[string]string{},
		open: map[string]*openFile{}, kept: map[string][]byte{}, keep: keep, arrived: arrived, engines: map[string]byte{},
	}
	var err error
	if f.tree, err = filetree.NewWriter(ctx, sink); err != nil {
		return nil, err
	}
	if err := f.directory("."); err != nil {
		f.abort(err)
		return nil, err
	}
	return f, nil
}

// read takes a whole stream.
func (f *fileSet) read(r *xbstream.Reader) error {
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			return f.whole()
		}
		if err != nil {
			return err
		}
		if err := f.chunk(&c, r); err != nil {
			return fmt.Errorf("file %q: %w", c.Path, err)
		}
	}
}

// whole says whether all files have ended.
func (f *fileSet) whole() error {
	if len(f.open) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(f.open))
	return fmt.Errorf("%w: it ends before %d of its files do, %q one of them: %w", xbstream.ErrStream, len(names), names[0], io.ErrUnexpectedEOF)
}

func (f *fileSet) chunk(c *xbstream.Chunk, data io.Reader) error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	switch c.Kind {
	case xbstream.Remove:
		return f.remove(c.Path)
	case xbstream.Rename:
		return f.rename(c.Path, c.To)
	}
	o := f.open[c.Path]
	if o == nil {
		var err error
		// Only what has content says that it comes anew.
		if o, err = f.begin(c.Path, c.Anew || c.Kind == xbstream.End); err != nil {
			return err
		}
	}
	switch c.Kind {
	case xbstream.Seek:
		o.at = c.Offset
		return nil
	case xbstream.End:
		delete(f.open, c.Path)
		return f.end(c.Path, o)
	default:
		if c.Offset != o.at {
			return fmt.Errorf("%w: %d bytes come for offset %d instead of %d", xbstream.ErrStream, c.Length, c.Offset, o.at)
		}
		return f.payload(o, c.Length, data)
	}
}

// begin takes a file whose first chunk has come.
func (f *fileSet) begin(name string, anew bool) (*openFile, error) {
	if !below(name) {
		return nil, fmt.Errorf("%w: that is no path of a file below the data directory", xbstream.ErrStream)
	}
	if strings.HasSuffix(name, ".isl") {
		return nil, errors.New("its table lies outside of the data directory (DATA DIRECTORY), where no restore could put it: take another --method, or move the table")
	}
	if _, exists := f.files[name]; exists && !anew {
		return nil, fmt.Errorf("%w: it comes a second time", xbstream.ErrStream)
	}
	if len(f.open) >= mostOpen {
		return nil, fmt.Errorf("%w: more than %d files at once", xbstream.ErrStream, mostOpen)
	}
	o := &openFile{stored: name}
	for n := len(f.stored); f.stored[o.stored] || strings.HasPrefix(o.stored, asideDirectory+"/") && o.stored == name; n++ {
		o.stored = fmt.Sprintf("%s/%d", asideDirectory, n)
	}
	f.stored[o.stored] = true
	f.files[name] = o.stored
	f.open[name] = o
	return o, nil
}

// below tells whether a path is that of a file within a directory.
func below(name string) bool {
	return utf8.ValidString(name) && filepath.IsLocal(name) && path.Clean(name) == name && name != "." && strings.IndexByte(name, 0) < 0
}

// payload takes so many bytes of a file.
func (f *fileSet) payload(o *openFile, length int64, data io.Reader) error {
	f.bytes += length
	if gap := o.at - o.size; gap > 0 {
		return fmt.Errorf("%w: %d bytes of it were left out", xbstream.ErrStream, gap)
	}
	if o.stream == nil && o.at+length > smallFile {
		if err := f.enlarge(o); err != nil {
			return err
		}
	}
	switch {
	case o.stream == nil:
		end := o.at + length
		o.small = append(o.small, make([]byte, max(0, end-o.size))...)
		if _, err := io.ReadFull(data, o.small[o.at:end]); err != nil {
			return err
		}
		o.at, o.size = end, int64(len(o.small))
		return nil
	case o.at < o.size:
		return f.patch(o, length, data)
	}
	n, err := io.Copy(o.stream, data)
	o.at, o.size = o.at+n, o.size+n
	return err
}

// enlarge gives a file a stream.
func (f *fileSet) enlarge(o *openFile) (err error) {
	elements := strings.Split(o.stored, "/")
	for i, e := range elements {
		elements[i] = escapeElement(e)
	}
	o.data = largePrefix + strings.Join(elements, "/")
	if o.stream, err = f.sink.Create(f.ctx, o.data); err != nil {
		return err
	}
	if _, err := o.stream.Write(o.small); err != nil {
		return err
	}
	o.small = nil
	return nil
}

// patch remembers bytes for a place that has been stored already.
func (f *fileSet) patch(o *openFile, length int64, data io.Reader) error {
	if length > mostPatch || o.at+length > o.size {
		return fmt.Errorf("%w: %d bytes at %d of what has been sent already, up to %d", xbstream.ErrStream, length, o.at, o.size)
	}
	p := storedName{Stored: o.stored, Offset: o.at, Data: make([]byte, length)}
	if _, err := io.ReadFull(data, p.Data); err != nil {
		return err
	}
	f.patches = append(f.patches, p)
	o.at += length
	return nil
}

// end stores a file that has come whole.
func (f *fileSet) end(name string, o *openFile) error {
	if f.keep(name) {
		if o.stream != nil {
			return fmt.Errorf("%w: it is larger than a file of its kind can be", xbstream.ErrStream)
		}
		f.kept[name] = o.small
		if err := f.arrived(name); err != nil {
			return err
		}
	}
	if o.stream != nil {
		f.large = append(f.large, record.Object{Kind: kindFile, Name: o.stored, Data: []string{o.data}, Rows: -1})
		return o.stream.Close()
	}
	if strings.HasSuffix(name, definitionFile) && len(o.small) > 3 && o.small[0] == 0xfe { // no view's
		f.engines[o.stored] = o.small[3]
	}
	if err := f.directory(path.Dir(o.stored)); err != nil {
		return err
	}
	return f.tree.Add(&filetree.Entry{Name: o.stored, Kind: filetree.File, Mode: fileMode, Size: o.size}, bytes.NewReader(o.small))
}

// directory adds a directory and those above it.
func (f *fileSet) directory(name string) error {
	if f.directories[name] {
		return nil
	}
	if name != "." {
		if err := f.directory(path.Dir(name)); err != nil {
			return err
		}
	}
	f.directories[name] = true
	return f.tree.Add(&filetree.Entry{Name: name, Kind: filetree.Directory, Mode: directoryMode}, nil)
}

// remove forgets a file. That one which never came is taken back harms nothing.
func (f *fileSet) remove(name string) error {
	if f.open[name] != nil {
		return fmt.Errorf("%w: it is removed before it has ended", xbstream.ErrStream)
	}
	delete(f.files, name)
	delete(f.kept, name)
	return nil
}

// rename gives a file another path. One that never came, since its table is younger, mbstream passes over as well.
func (f *fileSet) rename(from, to string) error {
	if f.open[from] != nil || f.open[to] != nil || !below(to) {
		return fmt.Errorf("%w: it cannot be renamed to %q", xbstream.ErrStream, to)
	}
	stored, exists := f.files[from]
	if !exists {
		return nil
	}
	delete(f.files, from)
	f.files[to] = stored
	return nil
}

// close ends the archive, and gives it up when it cannot.
func (f *fileSet) close() (tree record.Object, err error) {
	if err := f.names(); err != nil {
		f.abort(err)
		return tree, err
	}
	return f.tree.Close(treeName)
}

// names stores where the files are.
func (f *fileSet) names() error {
	paths := map[string]string{} // by stored names
	for p, stored := range f.files {
		if err := f.directory(path.Dir(p)); err != nil {
			return err
		}
		paths[stored] = p
	}
	stream, err := f.sink.Create(f.ctx, namesStream)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(stream)
	for _, stored := range slices.Sorted(maps.Keys(f.stored)) {
		if p := paths[stored]; p != stored {
			if err := encoder.Encode(storedName{Stored: stored, Path: p}); err != nil {
				stream.Abort(err)
				return err
			}
		}
	}
	for i := range f.patches {
		if err := encoder.Encode(&f.patches[i]); err != nil {
			stream.Abort(err)
			return err
		}
	}
	return stream.Close()
}

// abort gives up what has been written.
func (f *fileSet) abort(err error) {
	for _, o := range f.open {
		if o.stream != nil {
			o.stream.Abort(err)
		}
	}
	f.tree.Abort(err)
}
