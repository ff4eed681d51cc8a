package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"testing"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

var update = flag.Bool("update", false, "write testdata anew")

// Embedded, so that the tests need no file system in a browser.
//
//go:embed testdata/records.json
var testdata embed.FS

const recordFile = "testdata/records.json"

// recordVectors is testdata/records.json: what a responder's channel may bring, and what an initiator makes of it. Every stream ends by
// the channel being closed, unless a violation ends it before. The SHA-256 is that of the contents of all data records
// that were released until then, one after the other.
type recordVectors struct {
	Keys     map[string][]recordKey `json:"keys"`     // by channel, per epoch
	Messages map[string]string      `json:"messages"` // base64; those of a record in several messages are numbered
	Streams  []recordStream         `json:"streams"`
}

type recordKey struct {
	Key string `json:"key"`
	IV  string `json:"iv"`
}

type recordStream struct {
	Name     string   `json:"name"`
	Channel  string   `json:"channel"`
	Messages []string `json:"messages"`
	End      string   `json:"end"` // closed or violation
	Records  int      `json:"records"`
	Released string   `json:"released"`
}

var channelNames = map[string]wire.Channel{"control": wire.Control, "bulk": wire.Bulk}

// testKeys are the keys of two epochs, all different.
func testKeys(t testing.TB, d wire.Direction, ch wire.Channel, epoch uint32) (key [32]byte, iv [12]byte) {
	t.Helper()
	key = sha256.Sum256([]byte{'k', byte(d), byte(ch), byte(epoch)})
	sum := sha256.Sum256([]byte{'i', byte(d), byte(ch), byte(epoch)})
	return key, [12]byte(sum[:])
}

// testEpochs are the keys of two epochs as a link has them.
func testEpochs(t testing.TB) map[uint32]*epochKeys {
	t.Helper()
	keys := map[uint32]*epochKeys{}
	for epoch := range uint32(2) {
		k := new(epochKeys)
		for _, d := range []wire.Direction{wire.FromInitiator, wire.FromResponder} {
			for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
				key, iv := testKeys(t, d, ch, epoch)
				aead, err := bulk.Go{}.NewAEAD(key[:])
				if err != nil {
					t.Fatal(err)
				}
				k.aead[d][ch], k.iv[d][ch] = aead, iv
			}
		}
		keys[epoch] = k
	}
	return keys
}

// sealRecord makes a record under those keys.
func sealRecord(t testing.TB, d wire.Direction, ch wire.Channel, kind wire.RecordType, epoch uint32, sequence uint64, plaintext []byte) []byte {
	t.Helper()
	k := testEpochs(t)[epoch]
	h := wire.RecordHeader{Length: uint32(wire.RecordHeaderSize - 4 + len(plaintext) + wire.TagSize), Type: kind, Epoch: epoch, Sequence: sequence}
	record := append(h.Append(nil), make([]byte, len(plaintext)+wire.TagSize)...)
	nonce := wire.Nonce(k.iv[d][ch], sequence)
	if err := k.aead[d][ch].Seal(record[wire.RecordHeaderSize:], nonce[:], plaintext, h.AppendAAD(nil, ch)); err != nil {
		t.Fatal(err)
	}
	return record
}

// readStream has the reading side of an initiator's link read messages until it fails. release gets what comes out.
func readStream(t testing.TB, ch wire.Channel, stream [][]byte, release func(plaintext []byte)) error {
	t.Helper()
	conn, _ := newPipe()
	in := conn.channels[ch]
	in.in = make(chan []byte, len(stream))
	for _, message := range stream {
		in.in <- message
	}
	_ = conn.Close()
	l := &Link{cfg: LinkConfig{Conn: conn, Engine: bulk.Go{}, Pool: new(bulk.Pool)}, direction: wire.FromInitiator,
		keys: testEpochs(t), changed: make(chan struct{})}
	for sequence := uint64(0); ; {
		b, err := l.readRecord(context.Background(), ch, &sequence)
		if err != nil {
			return err
		}
		release(b.B)
		b.Release()
	}
}

// testMessages are the messages that streams are made of.
func testMessages(t testing.TB, ch wire.Channel) map[string][]byte {
	from, to := wire.FromResponder, wire.FromInitiator
	text := func(n byte) []byte { return bytes.Repeat([]byte{n}, 20) }
	data := func(epoch uint32, sequence uint64, n byte) []byte {
		return sealRecord(t, from, ch, wire.RecordData, epoch, sequence, text(n))
	}
	change := func(record []byte, at int) []byte {
		record = bytes.Clone(record)
		record[(at+len(record))%len(record)] ^= 1
		return record
	}
	cut := func(record []byte) []byte {
		record = bytes.Clone(record[:len(record)-1])
		binary.BigEndian.PutUint32(record, uint32(len(record)-4))
		return record
	}
	m := map[string][]byte{
		"data 0": data(0, 0, 0), "data 1": data(0, 1, 1), "data 2": data(0, 2, 2),
		"key 2":                 sealRecord(t, from, ch, wire.RecordKey, 0, 2, nil),
		"data 3":                data(0, 3, 3),
		"epoch 1 data 0":        data(1, 0, 10),
		"epoch 1 data 1":        data(1, 1, 11),
		"epoch 1 data 2":        data(1, 2, 12),
		"epoch 1 data 3":        data(1, 3, 13),
		"epoch 1 key 0":         sealRecord(t, from, ch, wire.RecordKey, 1, 0, nil),
		"key 2 with content":    sealRecord(t, from, ch, wire.RecordKey, 0, 2, text(2)),
		"of the other channel":  sealRecord(t, from, 1-ch, wire.RecordData, 0, 1, text(1)),
		"of the initiator":      sealRecord(t, to, ch, wire.RecordData, 0, 1, text(1)),
		"data 1, length":        change(data(0, 1, 1), 3),
		"data 1, type":          change(data(0, 1, 1), 4),
		"data 1, epoch":         change(data(0, 1, 1), 8),
		"data 1, sequence":      change(data(0, 1, 1), 16),
		"data 1, ciphertext":    change(data(0, 1, 1), wire.RecordHeaderSize),
		"data 1, tag":           change(data(0, 1, 1), -1),
		"data 1, cut":           cut(data(0, 1, 1)),
		"data 1, extended":      append(data(0, 1, 1), 0),
		"data 0 as data 1":      fitted(data(0, 0, 0), 0, 1),
		"data 0 as epoch 1":     fitted(data(0, 0, 0), 1, 0),
		"in the clear":          append(wire.RecordHeader{Length: wire.RecordHeaderSize - 4 + 20, Type: wire.RecordConfirm, Sequence: 1}.Append(nil), text(1)...),
		"in the clear, short":   wire.RecordHeader{Length: wire.RecordHeaderSize - 4, Type: wire.RecordConfirm, Sequence: 1}.Append(nil),
		"empty":                 {},
		"length of 4 GiB":       {0xff, 0xff, 0xff, 0xff},
		"two records":           slices.Concat(data(0, 1, 1), data(0, 2, 2)),
		"no room for the tag":   append(wire.RecordHeader{Length: wire.RecordHeaderSize - 4 + 15, Type: wire.RecordData, Sequence: 1}.Append(nil), make([]byte, 15)...),
		"empty content, data 1": sealRecord(t, from, ch, wire.RecordData, 0, 1, nil),
	}
	if ch == wire.Bulk {
		long := slices.Collect(messages(sealRecord(t, from, ch, wire.RecordData, 0, 1, bytes.Repeat([]byte{1}, wire.MessageSize))))
		m["long 1/2"], m["long 2/2"] = long[0], long[1]
		m["long 2/2, cut"], m["long 2/2, changed"] = long[1][:len(long[1])-1], change(long[1], 0)
	}
	return m
}

// testStreams are a name, how it ends, and the messages of each stream.
func testStreams(ch wire.Channel) [][]string {
	list := [][]string{
		{"nothing", "closed"},
		{"whole", "closed", "data 0", "data 1", "data 2"},
		{"cut between records", "closed", "data 0", "data 1"},
		{"empty content", "closed", "data 0", "empty content, data 1", "data 2"},
		{"new keys", "closed", "data 0", "data 1", "key 2", "epoch 1 data 0", "epoch 1 data 1"},
		{"ends with the keys", "closed", "data 0", "data 1", "key 2"},
		{"first record left out", "violation", "data 1"},
		{"record left out", "violation", "data 0", "data 2"},
		{"record twice", "violation", "data 0", "data 0", "data 1"},
		{"record again, later", "violation", "data 0", "data 1", "data 0", "data 2"},
		{"record again, renumbered", "violation", "data 0", "data 0 as data 1", "data 2"},
		{"swapped", "violation", "data 0", "data 2", "data 1"},
		{"other channel", "violation", "data 0", "of the other channel"},
		{"other direction", "violation", "data 0", "of the initiator"},
		{"in the clear", "violation", "data 0", "in the clear", "data 1"},
		{"in the clear, short", "violation", "data 0", "in the clear, short", "data 1"},
		{"empty message", "violation", "data 0", "empty", "data 1"},
		{"4 GiB", "violation", "data 0", "length of 4 GiB"},
		{"two records in a message", "violation", "data 0", "two records"},
		{"no room for the tag", "violation", "data 0", "no room for the tag"},
		{"old key after the switch", "violation", "data 0", "data 1", "key 2", "data 3"},
		{"old record after the switch", "violation", "data 0", "data 1", "key 2", "data 0"},
		{"old record after the switch, renumbered", "violation", "data 0", "data 1", "key 2", "data 0 as epoch 1"},
		{"new key before the switch", "violation", "data 0", "data 1", "epoch 1 data 0"},
		{"new key before the switch, old sequence", "violation", "data 0", "data 1", "epoch 1 data 2"},
		{"key record left out", "violation", "data 0", "data 1", "data 2", "epoch 1 data 0"},
		{"key record twice", "violation", "data 0", "data 1", "key 2", "key 2", "epoch 1 data 0"},
		{"key record with content", "violation", "data 0", "data 1", "key 2 with content", "epoch 1 data 0"},
		{"key record without an exchange", "violation", "data 0", "data 1", "key 2", "epoch 1 key 0"},
		{"sequence goes on after the switch", "violation", "data 0", "data 1", "key 2", "epoch 1 data 3"},
		{"record left out after the switch", "violation", "data 0", "data 1", "key 2", "epoch 1 data 1"},
	}
	for _, change := range []string{"length", "type", "epoch", "sequence", "ciphertext", "tag", "cut", "extended"} {
		list = append(list, []string{"changed: " + change, "violation", "data 0", "data 1, " + change, "data 2"})
	}
	if ch == wire.Bulk {
		list = append(list, [][]string{
			{"long", "closed", "data 0", "long 1/2", "long 2/2", "data 2"},
			{"cut within a record", "closed", "data 0", "long 1/2"},
			{"rest of a record left out", "violation", "data 0", "long 1/2", "data 2"},
			{"start of a record left out", "violation", "data 0", "long 2/2", "data 2"},
			{"messages swapped", "violation", "data 0", "long 2/2", "long 1/2", "data 2"},
			{"message twice", "violation", "data 0", "long 1/2", "long 1/2", "long 2/2"},
			{"message cut", "violation", "data 0", "long 1/2", "long 2/2, cut", "data 2"},
			{"message changed", "violation", "data 0", "long 1/2", "long 2/2, changed", "data 2"},
		}...)
	}
	return list
}

// TestRecordVectors reads the streams of testdata, which -update makes anew.
func TestRecordVectors(t *testing.T) {
	if *update {
		writeRecordVectors(t)
		return
	}
	b, err := testdata.ReadFile(recordFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors recordVectors
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	want := 0
	for name, ch := range channelNames {
		want += len(testStreams(ch))
		for epoch, k := range vectors.Keys[name] {
			key, iv := testKeys(t, wire.FromResponder, ch, uint32(epoch))
			if k != (recordKey{hex.EncodeToString(key[:]), hex.EncodeToString(iv[:])}) {
				t.Errorf("other keys of %s in epoch %d", name, epoch)
			}
		}
		for message, bytes := range testMessages(t, ch) {
			if vectors.Messages[name+" "+message] != base64.StdEncoding.EncodeToString(bytes) {
				t.Errorf("message %q of %s is another", message, name)
			}
		}
	}
	if len(vectors.Streams) != want {
		t.Errorf("%d streams, want %d", len(vectors.Streams), want)
	}
	for _, s := range vectors.Streams {
		t.Run(s.Channel+"/"+s.Name, func(t *testing.T) {
			var stream [][]byte
			for _, name := range s.Messages {
				message, err := base64.StdEncoding.DecodeString(vectors.Messages[s.Channel+" "+name])
				if err != nil {
					t.Fatal(err)
				}
				stream = append(stream, message)
			}
			if got := run(t, s, stream); got.End != s.End || got.Records != s.Records || got.Released != s.Released {
				t.Errorf("%s after %d records (%s), want %s after %d (%s)", got.End, got.Records, got.Released, s.End, s.Records, s.Released)
			}
		})
	}
}

// run reads a stream and says how it went.
func run(t *testing.T, s recordStream, stream [][]byte) recordStream {
	t.Helper()
	released := sha256.New()
	s.Records = 0
	err := readStream(t, channelNames[s.Channel], stream, func(plaintext []byte) {
		s.Records++
		released.Write(plaintext)
	})
	switch {
	case errors.Is(err, ErrClosed):
		s.End = "closed"
	case fault.Of(err) == fault.ProtocolViolation:
		s.End = "violation"
	default:
		t.Errorf("%s: ended with %v", s.Name, err)
	}
	s.Released = hex.EncodeToString(released.Sum(nil))
	return s
}

func writeRecordVectors(t *testing.T) {
	vectors := recordVectors{Keys: map[string][]recordKey{}, Messages: map[string]string{}}
	for _, name := range []string{"control", "bulk"} {
		ch := channelNames[name]
		for epoch := range uint32(2) {
			key, iv := testKeys(t, wire.FromResponder, ch, epoch)
			vectors.Keys[name] = append(vectors.Keys[name], recordKey{hex.EncodeToString(key[:]), hex.EncodeToString(iv[:])})
		}
		all := testMessages(t, ch)
		for message, bytes := range all {
			vectors.Messages[name+" "+message] = base64.StdEncoding.EncodeToString(bytes)
		}
		for _, s := range testStreams(ch) {
			var stream [][]byte
			for _, message := range s[2:] {
				bytes, ok := all[message]
				if !ok {
					t.Fatalf("no message %q", message)
				}
				stream = append(stream, bytes)
			}
			got := run(t, recordStream{Name: s[0], Channel: name, Messages: s[2:]}, stream)
			if got.End != s[1] {
				t.Fatalf("%s ends with %s, want %s", s[0], got.End, s[1])
			}
			vectors.Streams = append(vectors.Streams, got)
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(vectors); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordFile, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
