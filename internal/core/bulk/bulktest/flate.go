package bulktest

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"tallow/internal/core/bulk"
)

// TestCompressor holds a compressor against the contract of bulk.Compressor: streams from elsewhere, Go's own at many sizes, and everything
// that has to be refused.
func TestCompressor(t *testing.T, c bulk.Compressor) {
	t.Run("vectors", func(t *testing.T) { testFlateVectors(t, c) })
	t.Run("sizes", func(t *testing.T) { testFlateSizes(t, c) })
	t.Run("does not fit", func(t *testing.T) { testFlateFit(t, c) })
	t.Run("refused", func(t *testing.T) { testFlateRefused(t, c) })
	t.Run("bomb", func(t *testing.T) { testFlateBomb(t, c) })
	t.Run("concurrent", func(t *testing.T) { testFlateConcurrent(t, c) })
}

// Text is n bytes of something like prose: compressing leaves about a third.
func Text(n int) []byte {
	words := []string{"the", "sender", "announces", "each", "hash", "before", "its", "chunk", "and", "a", "recipient", "verifies", "what",
		"comes", "from", "anyone", "in", "order", "without", "gaps", "of", "to", "disk", "credit", "link", "member", "room", "key", "owner"}
	random := rand.New(rand.NewPCG(1, uint64(n)))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", words[random.IntN(len(words))], random.IntN(10))
	}
	return b.Bytes()[:n]
}

// Random is n bytes that cannot be compressed.
func Random(n int) []byte { return pattern(uint64(n), n) }

// Deflated is p as Go compresses it.
func Deflated(p []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		_, err = w.Write(p)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Made by hand after RFC 1951, sections 3.2.4 and 3.2.6, and by zlib.
var flateVectors = []struct{ name, stream, data string }{
	{"nothing, fixed codes", "0300", ""},
	{"stored", "010500faff68656c6c6f", "hello"},
	{"fixed codes", "cb48cdc9c90700", "hello"},
	{"a match that overlaps itself", "4b4c840100", "aaaaaaaaaa"},
	{"the Chunks vector in wire/testdata", "4b4c4aa4390400", strings.Repeat("ab", 50)},
	{"two blocks", "000200fdff68650103 00fcff6c6c6f", "hello"},
}

func testFlateVectors(t *testing.T, c bulk.Compressor) {
	for _, v := range flateVectors {
		got := make([]byte, len(v.data))
		if err := c.Inflate(got, unhex(t, string(bytes.ReplaceAll([]byte(v.stream), []byte(" "), nil)))); err != nil || string(got) != v.data {
			t.Errorf("%s: %q, %v", v.name, got, err)
		}
	}
}

func testFlateSizes(t *testing.T, c bulk.Compressor) {
	for _, size := range []int{1, 2, 100, 1023, 4096, 65_535, 65_536, 65_537, 1<<20 + 1} {
		for name, data := range map[string][]byte{"text": Text(size), "random": Random(size), "zeros": make([]byte, size)} {
			original := bytes.Clone(data)
			arena := bytes.Repeat([]byte{0xa5}, size+size/8+100)
			packed := arena[7 : len(arena)-9]
			n, err := c.Deflate(packed, data)
			if err != nil || n == 0 {
				t.Fatalf("%s of %d bytes: %d, %v", name, size, n, err)
			}
			if edge := []byte{0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5}; !bytes.Equal(arena[:7], edge) || !bytes.Equal(arena[len(arena)-7:], edge) || !bytes.Equal(data, original) {
				t.Fatalf("%s of %d bytes: Deflate wrote elsewhere", name, size)
			}
			if name == "text" && size > 1000 && n > size/2 || name == "zeros" && size > 1000 && n > size/50 {
				t.Errorf("%s of %d bytes compressed to %d", name, size, n)
			}
			if got, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed[:n]))); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %d bytes: Go reads it as %d bytes, %v", name, size, len(got), err)
			}
			for who, stream := range map[string][]byte{"itself": packed[:n], "Go": Deflated(data)} {
				arena := bytes.Repeat([]byte{0x5a}, size+2)
				if err := c.Inflate(arena[1:size+1], stream); err != nil || !bytes.Equal(arena[1:size+1], data) || arena[0] != 0x5a || arena[size+1] != 0x5a {
					t.Errorf("%s of %d bytes, compressed by %s: inflated to something else, or elsewhere: %v", name, size, who, err)
				}
			}
		}
	}
}

func testFlateFit(t *testing.T, c bulk.Compressor) {
	for _, size := range []int{100, 65_536, 256 << 10} {
		text := Text(size)
		whole := make([]byte, size)
		n, err := c.Deflate(whole, text)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		for _, test := range []struct {
			capacity, want int
			data           []byte
		}{{n, n, text}, {n - 1, 0, text}, {n / 2, 0, text}, {1, 0, text}, {0, 0, text}, {size * 9 / 10, 0, Random(size)}, {size, 0, Random(size)}} {
			arena := bytes.Repeat([]byte{0xa5}, size+10)
			got, err := c.Deflate(arena[:test.capacity:test.capacity], test.data)
			if err != nil || got != test.want {
				t.Errorf("%d bytes into %d: %d, %v, want %d", size, test.capacity, got, err, test.want)
			}
			if rest := arena[test.capacity:]; !bytes.Equal(rest, bytes.Repeat([]byte{0xa5}, len(rest))) {
				t.Errorf("%d bytes into %d: wrote behind", size, test.capacity)
			}
		}
	}
}

func testFlateRefused(t *testing.T, c bulk.Compressor) {
	type refused struct {
		name   string
		length int
		stream []byte
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	text := Text(70_000)
	stream := Deflated(text)
	list := []refused{
		{"empty", 5, nil},
		{"empty, for nothing", 0, nil},
		{"a byte behind the end", len(text), join(stream, []byte{0})},
		{"many bytes behind the end", len(text), join(stream, make([]byte, 10_000))},
		{"a second stream behind the end", len(text), join(stream, stream)},
		{"a second, empty stream behind the end", len(text), join(stream, unhex(t, "0300"))},
		{"both streams declared", 2 * len(text), join(stream, stream)},
		{"a byte too few declared", len(text) - 1, stream},
		{"a byte too many declared", len(text) + 1, stream},
		{"half declared", len(text) / 2, stream},
		{"twice declared", 2 * len(text), stream},
		{"nothing declared", 0, stream},
		{"a zlib header", 5, unhex(t, "789ccb48cdc9c90700062c0215")},
		{"a gzip header", 5, unhex(t, "1f8b0800000000000003cb48cdc9c9070086a6103605000000")},
		{"not compressed at all", 70_000, text},
		{"a reserved block type", 5, unhex(t, "07")},
		{"a stored block whose lengths disagree", 5, unhex(t, "010500fbff68656c6c6f")},
		{"a match before the beginning", 10, unhex(t, "030200")},
	}
	short := Deflated(Text(300))
	for n := range short {
		list = append(list, refused{fmt.Sprintf("cut after %d of %d bytes", n, len(short)), 300, short[:n]})
	}
	for _, n := range []int{1, 1000, len(stream) / 2, len(stream) - 1} {
		list = append(list, refused{fmt.Sprintf("cut after %d of %d bytes", n, len(stream)), len(text), stream[:n]})
	}
	for _, test := range list {
		dst := bytes.Repeat([]byte{0x5a}, test.length)
		if err := c.Inflate(dst, test.stream); !errors.Is(err, bulk.ErrInflate) {
			t.Errorf("%s: %v, want ErrInflate", test.name, err)
		}
		if !bytes.Equal(dst, make([]byte, test.length)) {
			t.Errorf("%s: dst is not cleared", test.name)
		}
	}
	got := make([]byte, len(text))
	if err := c.Inflate(got, stream); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the genuine one is not read after the others: %v", err)
	}
}

// testFlateBomb: what claims to be much more than was declared stops there, and takes no memory.
func testFlateBomb(t *testing.T, c bulk.Compressor) {
	var bomb bytes.Buffer
	w, err := flate.NewWriter(&bomb, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		w.Write(zeros)
	}
	w.Close()
	dst := make([]byte, 64<<10)
	c.Inflate(dst, bomb.Bytes()) // warms up
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if err := c.Inflate(dst, bomb.Bytes()); !errors.Is(err, bulk.ErrInflate) {
			t.Fatalf("a bomb: %v", err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("ten bombs of %d bytes allocate %d", bomb.Len(), grown)
	}
}

func testFlateConcurrent(t *testing.T, c bulk.Compressor) {
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 10 {
				data := Text(1 + (w*7919+i*104_729)%100_000)
				packed, got := make([]byte, len(data)+100), make([]byte, len(data))
				n, err := c.Deflate(packed, data)
				if err == nil {
					err = c.Inflate(got, packed[:n])
				}
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("worker %d, round %d: %v", w, i, err)
				}
				if err := c.Inflate(got, packed[:n-1]); !errors.Is(err, bulk.ErrInflate) {
					t.Errorf("worker %d, round %d, cut: %v", w, i, err)
				}
			}
		})
	}
	group.Wait()
}
