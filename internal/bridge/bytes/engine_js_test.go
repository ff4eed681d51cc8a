package bytes

import (
	"fmt"
	"sync"
	"testing"

	"tallow/internal/core/bulk"
	"tallow/internal/core/bulk/bulktest"
)

func TestWebCrypto(t *testing.T) {
	engine, accelerated := NewEngine()
	if !accelerated {
		t.Fatal("no WebCrypto")
	}
	bulktest.TestEngine(t, engine)
}

func TestCompressionStreams(t *testing.T) {
	engine, _ := NewEngine()
	compressor, compresses := engine.(bulk.Compressor)
	if !compresses {
		t.Fatal("no compression streams")
	}
	bulktest.TestCompressor(t, compressor)
}

func BenchmarkCompressor(b *testing.B) {
	engine, _ := NewEngine()
	compressor := engine.(bulk.Compressor)
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, data := range []struct {
			name string
			p    []byte
		}{{"text", bulktest.Text(size)}, {"random", bulktest.Random(size)}} {
			packed := make([]byte, size)
			n, err := compressor.Deflate(packed, data.p)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("Deflate/%s/%d", data.name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportMetric(float64(n)/float64(size), "left")
				inFlight(b, 1, func() func() error {
					return func() error { _, err := compressor.Deflate(packed, data.p); return err }
				})
			})
			if n > 0 {
				raw := make([]byte, size)
				b.Run(fmt.Sprintf("Inflate/%s/%d", data.name, size), func(b *testing.B) {
					b.SetBytes(int64(size))
					inFlight(b, 1, func() func() error { return func() error { return compressor.Inflate(raw, packed[:n]) } })
				})
			}
		}
	}
}

func BenchmarkEngine(b *testing.B) {
	engine, _ := NewEngine()
	for _, size := range []int{64, 1 << 10, 2 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, flying := range []int{1, 4} {
			for _, e := range []struct {
				name string
				bulk.Engine
			}{{"webcrypto", engine}, {"go", bulk.Go{}}} {
				if e.name == "go" && (flying > 1 || size > 256<<10) {
					continue
				}
				aead, err := e.NewAEAD(make([]byte, bulk.KeySize))
				if err != nil {
					b.Fatal(err)
				}
				nonce, aad := make([]byte, bulk.NonceSize), make([]byte, 18)
				type work struct{ plain, sealed []byte }
				run := func(operation string, f func(work) error) {
					b.Run(fmt.Sprintf("%s/%d/%s/%d", operation, size, e.name, flying), func(b *testing.B) {
						b.SetBytes(int64(size))
						inFlight(b, flying, func() func() error {
							w := work{make([]byte, size), make([]byte, size+bulk.TagSize)}
							if err := aead.Seal(w.sealed, nonce, w.plain, aad); err != nil {
								b.Fatal(err)
							}
							return func() error { return f(w) }
						})
					})
				}
				run("Seal", func(w work) error { return aead.Seal(w.sealed, nonce, w.plain, aad) })
				run("Open", func(w work) error { return aead.Open(w.plain, nonce, w.sealed, aad) })
				run("Sum", func(w work) error {
					if e.name == "webcrypto" {
						_, err := digest(w.plain)
						return err
					}
					_, err := e.Sum256(w.plain)
					return err
				})
				aead.Destroy()
			}
		}
	}
}

// inFlight runs b.N operations, up to n at a time, and reports the processor time of the whole browser besides: on a busy machine that is what
// can be compared. prepare makes what one of the n runs again and again.
func inFlight(b *testing.B, n int, prepare func() func() error) {
	var group sync.WaitGroup
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	runs := make([]func() error, n)
	for i := range runs {
		runs[i] = prepare()
	}
	before := processor()
	b.ResetTimer()
	for _, run := range runs {
		group.Go(func() {
			for range work {
				if err := run(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric((processor()-before)*1e6/float64(b.N), "cpu-us/op")
}
