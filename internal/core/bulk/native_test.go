package bulk_test

import (
	"testing"

	"tallow/internal/core/bulk"
	"tallow/internal/core/bulk/bulktest"
)

func TestGo(t *testing.T) { bulktest.TestEngine(t, bulk.Go{}) }
