package wire

// Bulk messages and the manifest: PROTOCOL.md section 10.

// BulkType is the first byte of a bulk message.
type BulkType uint8

// The types of bulk messages.
const (
	BulkHashes BulkType = 1
	BulkChunks BulkType = 2
	BulkEnd    BulkType = 3
)

// Limits of bulk messages.
const (
	MaxHashes = 1024 // hashes in one Hashes
	MaxRun    = 1024 // chunks in one Chunks
)

// MessageCost is what a Chunks message costs in credit, besides its chunks: a recipient does work for each.
const MessageCost = 4096

// ChunkCost is what a chunk of n bytes costs in credit.
func ChunkCost(n uint32) uint64 { return uint64(n) + 64 }

// HashRun is the hashes of consecutive chunks of a file.
type HashRun struct {
	File, First uint32
	List        []byte // 32 bytes each, 1 to MaxHashes of them
}

// Count is the number of hashes.
func (r HashRun) Count() int { return len(r.List) / len(Hash{}) }

// At is the i-th hash.
func (r HashRun) At(i int) Hash { return Hash(r.List[i*len(Hash{}):]) }

// Hashes announces the hashes of chunks.
type Hashes struct {
	Sender, Transfer ID
	Runs             []HashRun // 1 to MaxHashes, with at most MaxHashes hashes in all
}

// Append appends the message with its type byte.
func (m Hashes) Append(b []byte) []byte {
	must(len(m.Runs) >= 1 && len(m.Runs) <= MaxHashes, "number of hash runs")
	b = append(append(append(b, byte(BulkHashes)), m.Sender[:]...), m.Transfer[:]...)
	b = appendU16(b, uint16(len(m.Runs)))
	for _, r := range m.Runs {
		must(len(r.List)%len(Hash{}) == 0 && r.Count() >= 1 && r.Count() <= MaxHashes, "number of hashes")
		b = appendU16(appendU32(appendU32(b, r.File), r.First), uint16(r.Count()))
		b = append(b, r.List...)
	}
	return b
}

// ParseHashes parses a message of type BulkHashes.
func ParseHashes(p []byte) (m Hashes, err error) {
	d := decodeBulk("Hashes", BulkHashes, p)
	m = Hashes{Sender: d.id(), Transfer: d.id()}
	total := 0
	for range d.count(int(d.u16()), 1, MaxHashes, 4+4+2+len(Hash{})) {
		r := HashRun{File: d.u32(), First: d.u32()}
		r.List = d.bytes(len(Hash{}) * d.count(int(d.u16()), 1, MaxHashes, len(Hash{})))
		if total += r.Count(); total > MaxHashes {
			d.fail("too many hashes")
		}
		m.Runs = append(m.Runs, r)
	}
	return m, d.end()
}

// ChunkEntry describes one chunk of a Chunks message.
type ChunkEntry struct {
	File, Index uint32
	Compressed  bool   // DEFLATE (RFC 1951)
	RawLength   uint32 // of the chunk
	Length      uint32 // of its data here
}

// Chunks carries chunks. The data of all entries, in order, is the rest of the message.
type Chunks struct {
	Sender, Transfer ID
	Entries          []ChunkEntry
	Data             []byte
}

// ChunksOverhead is how many bytes a Chunks message of n entries has besides the data.
func ChunksOverhead(n int) int { return 1 + 16 + 16 + 2 + n*17 }

// AppendHead appends the message with its type byte up to the data, which the caller places behind it.
func (m Chunks) AppendHead(b []byte) []byte {
	must(len(m.Entries) >= 1 && len(m.Entries) <= MaxRun, "number of chunks")
	b = append(append(append(b, byte(BulkChunks)), m.Sender[:]...), m.Transfer[:]...)
	b = appendU16(b, uint16(len(m.Entries)))
	for _, e := range m.Entries {
		b = append(appendU32(appendU32(b, e.File), e.Index), flag(e.Compressed, 1))
		b = appendU32(appendU32(b, e.RawLength), e.Length)
	}
	return b
}

// ParseChunks parses a message of type BulkChunks. Lengths of entries and data agree, and no chunk is empty or larger
// than MaxChunkSize.
func ParseChunks(p []byte) (m Chunks, err error) {
	d := decodeBulk("Chunks", BulkChunks, p)
	m = Chunks{Sender: d.id(), Transfer: d.id()}
	var raw, data uint64
	n := d.count(int(d.u16()), 1, MaxRun, 17)
	if n > 0 {
		m.Entries = make([]ChunkEntry, 0, n)
	}
	for range n {
		e := ChunkEntry{d.u32(), d.u32(), d.oneOf(d.u8(), 0, 1) == 1, d.u32(), d.u32()}
		if e.RawLength == 0 || e.Length == 0 || e.Length > e.RawLength || !e.Compressed && e.Length != e.RawLength {
			d.fail("chunk length")
		}
		raw, data = raw+uint64(e.RawLength), data+uint64(e.Length)
		m.Entries = append(m.Entries, e)
	}
	m.Data = d.rest()
	if d.err == nil && (raw > MaxChunkSize || data != uint64(len(m.Data))) {
		d.fail("data length")
	}
	return m, d.end()
}

// End closes a delivery.
type End struct {
	Transfer  ID
	Root      Hash
	Files     Bitmap // the files that are complete
	Signature []byte
}

// Append appends the message with its type byte.
func (m End) Append(b []byte) []byte {
	b = append(append(append(b, byte(BulkEnd)), m.Transfer[:]...), m.Root[:]...)
	return appendFixed(appendBytes16(b, m.Files, maxBitmap), m.Signature, SignatureSize)
}

// ParseEnd parses a message of type BulkEnd.
func ParseEnd(p []byte) (m End, err error) {
	d := decodeBulk("End", BulkEnd, p)
	m = End{d.id(), d.hash(), d.bytes16(maxBitmap), d.bytes(SignatureSize)}
	return m, d.end()
}

// AppendDelivery appends what the signature of End covers; that of Receipt covers more (Receipt.AppendSigned).
func AppendDelivery(b []byte, sender, transfer ID, root Hash, files Bitmap) []byte {
	b = append(append(append(b, sender[:]...), transfer[:]...), root[:]...)
	return append(b, files...)
}

// BulkTypeOf is the type of a bulk message; an empty one has the type 0, which nobody sends.
func BulkTypeOf(p []byte) BulkType {
	if len(p) == 0 {
		return 0
	}
	return BulkType(p[0])
}

func decodeBulk(what string, t BulkType, p []byte) *decoder {
	d := decode(what, p)
	if BulkType(d.u8()) != t {
		d.fail("wrong type")
	}
	return d
}

// FileKind says what a file of the manifest is.
type FileKind uint8

// The kinds of files.
const (
	KindFile      FileKind = 0
	KindText      FileKind = 1
	KindDirectory FileKind = 2
)

// Limits of the manifest's fields.
const (
	MaxPath      = 4096
	MaxMediaType = 255
	MaxText      = 1 << 20
)

// FileEntry is one file of a manifest.
type FileEntry struct {
	Kind      FileKind
	Size      uint64
	Modified  uint64 // ms since 1970; 0: unknown
	MediaType string
	Path      string // as the sender gave it, with '/'; see chunk.SafePath
}

// Append appends the entry.
func (m FileEntry) Append(b []byte) []byte {
	must(len(m.Path) > 0, "empty path")
	b = appendU64(appendU64(append(b, byte(m.Kind)), m.Size), m.Modified)
	return appendBytes16(appendBytes8(b, m.MediaType, MaxMediaType), m.Path, MaxPath)
}

// ParseManifest parses a manifest of the given number of files and total size.
func ParseManifest(p []byte, files uint32, totalSize uint64) ([]FileEntry, error) {
	d := decode("manifest", p)
	n := d.count(int(files), 1, MaxFiles, 1+8+8+1+2+1)
	list := make([]FileEntry, 0, n)
	var total uint64
	for range n {
		e := FileEntry{FileKind(d.oneOf(d.u8(), 0, 2)), d.u64(), d.u64(), d.text8(MaxMediaType), d.text16(MaxPath)}
		switch {
		case d.err != nil:
		case e.Path == "":
			d.fail("empty path")
		case e.Size > MaxTotalSize, e.Kind == KindText && e.Size > MaxText, e.Kind == KindDirectory && e.Size > 0:
			d.fail("size")
		}
		total += e.Size
		if d.err == nil && total > totalSize {
			d.fail("total size")
		}
		list = append(list, e)
	}
	if d.err == nil && total != totalSize {
		d.fail("total size")
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return list, nil
}
