package wire

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	flags "flag" // the package has a function of that name
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flags.Bool("update", false, "write testdata anew")

// Embedded, so that the tests need no file system in a browser.
//
//go:embed testdata
var testdata embed.FS

const vectorFile = "testdata/vectors.json"

// vector is how a message stands in testdata. In fields, byte strings are hexadecimal; one of more than 64 bytes is
// given as {"count up from": first byte, "length": bytes}.
type vector struct {
	Name    string          `json:"name"`
	Section string          `json:"section"`
	Fields  json.RawMessage `json:"fields"`
	Hex     string          `json:"hex"`
}

// derived are byte strings that are not messages, but must be the same on both ends.
func derived() []vector {
	header := RecordHeader{13 + 20, RecordData, 0x01020304, 0x05060708090a0b0c}
	aad := struct {
		Channel Channel
		Header  RecordHeader
	}{Bulk, header}
	nonce := struct {
		IV       [12]byte
		Sequence uint64
	}{[12]byte(pattern(0xf0, 12)), 0x05060708090a0b0c}
	delivery := struct {
		Sender, Transfer ID
		Root             Hash
		Files            Bitmap
	}{id(0x20), id(0x10), hash(0x30), Bitmap{0x05}}
	receipt := struct {
		Sender, Transfer ID
		Root             Hash
		Files            Bitmap
		InMemory         bool
	}{delivery.Sender, delivery.Transfer, delivery.Root, delivery.Files, true}
	n := Nonce(nonce.IV, nonce.Sequence)
	var list []vector
	for _, v := range []struct {
		name, section string
		fields        any
		bytes         []byte
	}{
		{"record AAD", "8", aad, header.AppendAAD(nil, Bulk)},
		{"record nonce", "8", nonce, n[:]},
		{"signed by End", "10", delivery, AppendDelivery(nil, delivery.Sender, delivery.Transfer, delivery.Root, delivery.Files)},
		{"signed by Receipt", "10", receipt,
			Receipt{Transfer: receipt.Transfer, Root: receipt.Root, Files: receipt.Files, InMemory: receipt.InMemory}.AppendSigned(nil, receipt.Sender)},
	} {
		list = append(list, vector{v.name, v.section, describe(v.fields), hex.EncodeToString(v.bytes)})
	}
	return list
}

// TestVectors holds the encodings against testdata, which -update writes anew.
func TestVectors(t *testing.T) {
	var list []vector
	for _, s := range samples() {
		list = append(list, vector{s.name, s.section, describe(s.fields), hex.EncodeToString(s.bytes)})
	}
	list = append(list, derived()...)
	names := map[string]bool{}
	for _, v := range list {
		if names[v.Name] {
			t.Fatalf("two vectors named %s", v.Name)
		}
		names[v.Name] = true
	}
	if *update {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(list); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := testdata.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var want []vector
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(list) {
		t.Fatalf("%d vectors for %d messages", len(want), len(list))
	}
	for i, w := range want {
		got := list[i]
		if got.Name != w.Name || got.Section != w.Section || !sameJSON(t, got.Fields, w.Fields) {
			t.Errorf("vector %d is %s (section %s) %s, want %s (section %s) %s",
				i, got.Name, got.Section, got.Fields, w.Name, w.Section, w.Fields)
		} else if got.Hex != w.Hex {
			t.Errorf("%s: %s\nwant %s", w.Name, got.Hex, w.Hex)
		}
	}
}

// TestVectorsParse parses what stands in testdata into the fields that stand there.
func TestVectorsParse(t *testing.T) {
	b, err := testdata.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for _, v := range list[:len(samples())] {
		p, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		s := sampleNamed(v.Name)
		fields, again, err := s.parse(p)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if _, bare := fields.(HubType); !bare && !sameJSON(t, describe(fields), v.Fields) {
			t.Errorf("%s: fields %s, want %s", v.Name, describe(fields), v.Fields)
		}
		if !bytes.Equal(again, p) {
			t.Errorf("%s: parsed and appended again: %x", v.Name, again)
		}
		if behind := s.append([]byte("before")); string(behind[:6]) != "before" || !bytes.Equal(behind[6:], p) {
			t.Errorf("%s: appended behind something: %x", v.Name, behind)
		}
	}
}

// TestReceiptSigned: nothing of a receipt can be changed under its signature.
func TestReceiptSigned(t *testing.T) {
	p := sampleNamed("Receipt").bytes
	signed := func(p []byte) []byte {
		m, err := ParseControl(p)
		if err != nil {
			return nil
		}
		return m.(Receipt).AppendSigned(nil, id(0x20))
	}
	changes := 0
	for i := 1; i < len(p)-SignatureSize; i++ {
		q := bytes.Clone(p)
		q[i] ^= 1
		if changed := signed(q); bytes.Equal(changed, signed(p)) {
			t.Errorf("byte %d is not covered", i)
		} else if changed != nil {
			changes++
		}
	}
	if changes != 16+32+1+1 { // all but the length of the bitmap
		t.Errorf("%d changes", changes)
	}
}

func sameJSON(t *testing.T, a, b json.RawMessage) bool {
	t.Helper()
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		t.Fatalf("not JSON: %s, %s", a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}

func typeName(v any) string { return reflect.TypeOf(v).String() }

// describe is a value as JSON, with the fields of structs in their order.
func describe(v any) json.RawMessage { return json.RawMessage(describeValue(reflect.ValueOf(v))) }

func describeValue(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Struct:
		var parts []string
		for i := range v.NumField() {
			parts = append(parts, fmt.Sprintf("%q: %s", v.Type().Field(i).Name, describeValue(v.Field(i))))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			if len(b) > 64 && bytes.Equal(b, pattern(b[0], len(b))) {
				return fmt.Sprintf(`{"count up from": %d, "length": %d}`, b[0], len(b))
			}
			return fmt.Sprintf("%q", hex.EncodeToString(b))
		}
		var parts []string
		for i := range v.Len() {
			parts = append(parts, describeValue(v.Index(i)))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.String:
		b, err := json.Marshal(v.String())
		if err != nil {
			panic(err)
		}
		return string(b)
	default:
		return fmt.Sprint(v.Interface())
	}
}
