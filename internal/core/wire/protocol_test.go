//go:build !js

package wire

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// constants are the package's constants with a type of its own: type, name, value.
func constants(t *testing.T) map[string]map[string]uint64 {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]uint64{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.ValueSpec)
				typ, ok := spec.Type.(*ast.Ident)
				if !ok {
					continue
				}
				value, err := strconv.ParseUint(spec.Values[0].(*ast.BasicLit).Value, 0, 64)
				if err != nil {
					t.Fatalf("%s: %v", spec.Names[0], err)
				}
				if all[typ.Name] == nil {
					all[typ.Name] = map[string]uint64{}
				}
				all[typ.Name][spec.Names[0].Name] = value
			}
		}
	}
	return all
}

// protocol is PROTOCOL.md, by the number of the section.
func protocol(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, part := range strings.Split(string(b), "\n## ")[1:] {
		number, text, _ := strings.Cut(part, ".")
		sections[number] = text
	}
	return sections
}

// table reads the rows "| type | name | …" of a section. A name counts up to its first parenthesis.
func table(section, prefix string) map[string]uint64 {
	m := map[string]uint64{}
	for _, row := range regexp.MustCompile(`(?m)^\| (0x[0-9a-f]+|\d+) \| (\w+)`).FindAllStringSubmatch(section, -1) {
		m[prefix+row[2]], _ = strconv.ParseUint(row[1], 0, 64)
	}
	return m
}

// enumeration reads "1 some-name, 2 other (remark), 3 third…" behind a marker, up to a closing parenthesis, a full stop,
// or the end of a paragraph or of a table's cell. A name is one word.
func enumeration(section, marker, prefix string) map[string]uint64 {
	_, text, found := strings.Cut(section, marker)
	if !found {
		return nil
	}
	m := map[string]uint64{}
	text = regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`[).|]|\n\n`).Split(text, 2)[0]
	for _, part := range strings.Split(text, ",") {
		words := strings.Fields(part)
		value, err := strconv.ParseUint(words[0], 10, 64)
		if err != nil {
			break
		}
		name := prefix
		for _, word := range strings.Split(words[1], "-") {
			name += strings.ToUpper(word[:1]) + word[1:]
		}
		m[name] = value
	}
	return m
}

// TestProtocolTables holds the types and codes of PROTOCOL.md against the constants here, in both directions.
func TestProtocolTables(t *testing.T) {
	section, goConstants := protocol(t), constants(t)
	for typ, c := range map[string]struct {
		spec map[string]uint64
		n    int // so that a table that is not found is noticed
	}{
		"HubType":      {table(section["4"], "Hub"), 11},
		"ClosingCode":  {enumeration(section["4"], "Closing codes: ", "Closing"), 9},
		"PayloadType":  {table(section["5"], "Payload"), 13},
		"RefuseCode":   {enumeration(section["6"], "code u8 (", "Refuse"), 5},
		"RecordType":   {enumeration(section["8"], "types    ", "Record"), 3},
		"ControlType":  {table(section["9"], "Control"), 20},
		"ByeCode":      {enumeration(section["9"], "| Bye | code u8: ", "Bye"), 5},
		"FailureCode":  {enumeration(section["9"], "Codes of Cancel and FileFailed: ", "Failure"), 10},
		"BulkType":     {table(section["10"], "Bulk"), 3},
		"FileKind":     {enumeration(section["10"], "kind u8 (", "Kind"), 3},
		"EnvelopeKind": {map[string]uint64{"RoomEnvelope": 1, "PairEnvelope": 2}, 2},
		"Channel":      {map[string]uint64{"Control": 0, "Bulk": 1}, 2},
		"Direction":    {map[string]uint64{"FromInitiator": 0, "FromResponder": 1}, 2},
	} {
		if len(c.spec) != c.n {
			t.Errorf("%s: PROTOCOL.md has %d, not %d: %v", typ, len(c.spec), c.n, c.spec)
		}
		if !maps.Equal(c.spec, goConstants[typ]) {
			t.Errorf("%s: PROTOCOL.md has %v, the code %v", typ, c.spec, goConstants[typ])
		}
		delete(goConstants, typ)
	}
	if len(goConstants) > 0 {
		t.Errorf("not compared with PROTOCOL.md: %v", slices.Sorted(maps.Keys(goConstants)))
	}
	// Messages of the hub have the high bit, and no others.
	for _, row := range regexp.MustCompile(`(?m)^\| (0x[0-9a-f]+) \| (\w+) \| (C→S|S→C)`).FindAllStringSubmatch(section["4"], -1) {
		if v, _ := strconv.ParseUint(row[1], 0, 8); (v >= 0x80) != (row[3] == "S→C") {
			t.Errorf("%s is %s", row[2], row[3])
		}
	}
}

// TestProtocolLimits looks for the limits that the code has where PROTOCOL.md says them.
func TestProtocolLimits(t *testing.T) {
	section := protocol(t)
	for _, c := range []struct{ section, text string }{
		{"4", "subprotocol `" + HubSubprotocol + "`"},
		{"4", fmt.Sprintf("binary messages of at most %s bytes", thousands(MaxHubMessage))},
		{"4", fmt.Sprintf("envelope (rest, 1 to %s bytes)", thousands(MaxEnvelope))},
		{"4", fmt.Sprintf("count u8 (≤ %d), each: URL count u8\n(1 to %d), URLs bytes16 (≤ %d each)", maxICEServers, maxICEURLs, maxICEField)},
		{"5", fmt.Sprintf("count u8 (1 to %d), each a candidate", MaxCandidates)},
		{"6", fmt.Sprintf("keys %d, name bytes8 (≤ %d)", KeysSize, MaxName)},
		{"6", fmt.Sprintf("count u8 (≤ %d)", MaxRoster)},
		{"7", fmt.Sprintf("KEM public key %d,", KEMPublicKeySize)},
		{"7", fmt.Sprintf("KEM ciphertext %d,", KEMCiphertextSize)},
		{"7", fmt.Sprintf("SDP bytes16 (≤ %s); signature(\"offer\") %d", thousands(MaxSDP), SignatureSize)},
		{"7", fmt.Sprintf("MAC %d", MACSize)},
		{"8", fmt.Sprintf("messages of %s to %s bytes", thousands(MinMessageSize), thousands(MessageSize))},
		{"8", fmt.Sprintf("at most\n%s on control (so that it is one message) and %s on bulk", thousands(MaxRecord(Control)-4), thousands(MaxRecord(Bulk)-4))},
		{"9", fmt.Sprintf("at most %s bytes", thousands(MaxControl))},
		{"9", fmt.Sprintf("participants u8 (≤ %d)", MaxParticipants)},
		{"9", fmt.Sprintf("data bytes16 (1 to %s)", thousands(MaxManifestPart))},
		{"9", fmt.Sprintf("runs u16 (≤ %s)", thousands(MaxHaveRuns))},
		{"10", fmt.Sprintf("path bytes16 (1 to %s bytes). Limits: %s files,\n%d MiB of manifest", thousands(MaxPath), thousands(MaxFiles), MaxManifest>>20)},
		{"10", fmt.Sprintf("a text has at most %d MiB", MaxText>>20)},
		{"10", fmt.Sprintf("a power of two from %d KiB to %d MiB", MinChunkSize>>10, MaxChunkSize>>20)},
		{"10", fmt.Sprintf("count u16 (1 to %s), count × hash 32; at most %s hashes in all", thousands(MaxHashes), thousands(MaxHashes))},
		{"10", fmt.Sprintf("count u16 (1 to %s), count × (file u32", thousands(MaxRun))},
	} {
		if !strings.Contains(strings.Join(strings.Fields(section[c.section]), " "), strings.Join(strings.Fields(c.text), " ")) {
			t.Errorf("section %s does not say %q", c.section, c.text)
		}
	}
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
