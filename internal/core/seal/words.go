package seal

import (
	_ "embed"
	"encoding/binary"
	"strings"
	"sync"
)

// The English word list of BIP-39, 2,048 words in ascending order:
// https://github.com/bitcoin/bips/blob/master/bip-0039/english.txt
//
//go:embed words.txt
var wordsText string

var words = sync.OnceValue(func() []string { return strings.Fields(wordsText) })

// safetyWords are the words for the first 44 bits: PROTOCOL.md section 7.
func safetyWords(safety []byte) (w [4]string) {
	bits := binary.BigEndian.Uint64(append([]byte{0, 0}, safety[:6]...))
	for i := range w {
		w[i] = words()[bits>>(48-11*(i+1))&0x7ff]
	}
	return w
}
