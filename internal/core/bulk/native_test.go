package bulk_test

import (
	"runtime"
	"testing"

	"tallow/internal/core/bulk"
	"tallow/internal/core/bulk/bulktest"
)

func TestGo(t *testing.T) { bulktest.TestEngine(t, bulk.Go{}) }

func TestGoCompressor(t *testing.T) {
	engine, compresses := any(bulk.Go{}).(bulk.Compressor)
	if compresses == (runtime.GOOS == "js") {
		t.Fatal("in the browser, and only there, Go's own compression would be dead weight")
	}
	if compresses {
		bulktest.TestCompressor(t, engine)
	}
}
