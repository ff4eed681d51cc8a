package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"
)

func TestWordList(t *testing.T) {
	// The hash of BIP-39's english.txt.
	sum := sha256.Sum256([]byte(wordsText))
	if got := hex.EncodeToString(sum[:]); got != "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda" {
		t.Errorf("SHA-256 %s", got)
	}
	if n := len(words()); n != 2048 {
		t.Errorf("%d words", n)
	}
	if !slices.IsSorted(words()) || len(slices.Compact(slices.Clone(words()))) != len(words()) {
		t.Error("not ascending, or with repeats")
	}
}

func TestSafetyWordBits(t *testing.T) {
	for _, c := range []struct {
		safety string
		want   [4]string
	}{
		{"000000000000", [4]string{"abandon", "abandon", "abandon", "abandon"}},
		{"00000000000f", [4]string{"abandon", "abandon", "abandon", "abandon"}}, // the last four bits say nothing
		{"fffffffffff0", [4]string{"zoo", "zoo", "zoo", "zoo"}},
		{"ffe000000000", [4]string{"zoo", "abandon", "abandon", "abandon"}},
		{"001ffc000000", [4]string{"abandon", "zoo", "abandon", "abandon"}},
		{"000003ff8000", [4]string{"abandon", "abandon", "zoo", "abandon"}},
		{"000000007ff0", [4]string{"abandon", "abandon", "abandon", "zoo"}},
		{"002008018040", [4]string{"ability", "able", "about", "above"}},
	} {
		if got := safetyWords(unhex(c.safety)); got != c.want {
			t.Errorf("%s: %v, want %v", c.safety, got, c.want)
		}
	}
}
