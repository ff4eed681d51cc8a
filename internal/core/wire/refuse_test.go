package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestRefusesTruncated(t *testing.T) {
	for _, s := range samples() {
		for n := range s.bytes {
			_, again, err := s.parse(s.bytes[:n])
			switch whole := s.open > 0 && n >= s.open; {
			case whole && (err != nil || !bytes.Equal(again, s.bytes[:n])):
				t.Errorf("%s, %d bytes: %v, %x", s.name, n, err, again)
			case !whole && !errors.Is(err, ErrMalformed):
				t.Errorf("%s, %d of %d bytes: error %v", s.name, n, len(s.bytes), err)
			}
		}
	}
}

func TestRefusesTrailingBytes(t *testing.T) {
	for _, s := range samples() {
		if s.open > 0 {
			continue
		}
		if _, _, err := s.parse(append(bytes.Clone(s.bytes), 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", s.name, err)
		}
	}
}

func TestRefusesOtherVersions(t *testing.T) {
	versions := 0
	for _, s := range samples() {
		for _, v := range []byte{0, 2, 255} {
			if s.version < 0 {
				continue
			}
			versions++
			_, _, err := s.parse(s.patched(s.version, v))
			if !errors.Is(err, ErrVersion) || !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, version %d: error %v", s.name, v, err)
			}
		}
		// Another error is not one of versions.
		if _, _, err := s.parse(nil); !errors.Is(err, ErrMalformed) || errors.Is(err, ErrVersion) {
			t.Errorf("%s, nothing: error %v", s.name, err)
		}
	}
	if versions != 3*9 { // Enter, Knock, Join, Roster twice, Refuse, Hello, Offer, Answer
		t.Errorf("%d versions tried", versions)
	}
}

func TestRefusesOtherTypes(t *testing.T) {
	for _, s := range samples() {
		hub := s.section == "4"
		if !hub && s.section != "9" && s.section != "10" || s.name == "manifest" {
			continue
		}
		for v := range 256 {
			p := s.patched(0, byte(v))
			if byte(v) == s.bytes[0] {
				continue
			}
			if _, again, err := s.parse(p); s.section == "9" {
				// One parser serves all types: another type may fit by chance, but then it is that type.
				if err == nil && !bytes.Equal(again, p) {
					t.Errorf("%s as type %d: parsed as %x", s.name, v, again)
				}
			} else if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s as type %d: error %v", s.name, v, err)
			}
		}
	}
	for v := range 256 {
		known := v >= int(ControlReveal) && v <= int(ControlReceived) || v >= int(ControlOffer) && v <= int(ControlSaving)
		if _, err := ParseControl([]byte{byte(v)}); (err == nil) || strings.Contains(err.Error(), "unknown type") == known {
			t.Errorf("control type %d: error %v", v, err)
		}
	}
}

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// cat joins byte strings.
func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestRefuses breaks one rule at a time. Each error names the rule, so that no case passes for another reason.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		sample string
		at     int // of with in the sample; -1: with is the whole message
		with   []byte
		why    string
	}{
		{"Send", -1, cat([]byte{2}, make([]byte, 16)), "envelope length"},
		{"Send", -1, cat([]byte{2}, make([]byte, 16+MaxEnvelope+1)), "envelope length"},
		{"Deliver", -1, cat([]byte{0x82}, make([]byte, 16+MaxEnvelope+1)), "envelope length"},
		{"ICEServers", 1, []byte{2}, "unknown value"},
		{"ICEServers", 6, []byte{17}, "count out of range"},
		{"ICEServers", 7, []byte{0}, "count out of range"},
		{"ICEServers", 7, []byte{9}, "count out of range"},
		{"ICEServers", 8, u16(513), "field too long"},
		{"ICEServers", 10, []byte{0xff}, "not UTF-8"},
		{"ICEServers", -1, cat([]byte{0x84, 0, 0, 0, 0, 0, 1, 1, 0, 1, 'u'}, u16(513), make([]byte, 515)), "field too long"},
		{"ICEServers", -1, cat([]byte{0x84, 0, 0, 0, 0, 0, 1, 1, 0, 1, 'u', 0, 0}, u16(513), make([]byte, 513)), "field too long"},
		{"ICEServers", -1, []byte{0x84, 0, 0, 0, 0, 0, 1, 1, 0, 1, 'u', 0, 1, 0xc3, 0, 0}, "not UTF-8"},
		{"ICEServers", -1, []byte{0x84, 0, 0, 0, 0, 0, 1, 1, 0, 1, 'u', 0, 0, 0, 1, 0xc3}, "not UTF-8"},
		{"Entered, alone", 9, u16(2049), "count out of range"},
		{"Entered, alone", 9, u16(2048), "too short"},
		{"Closing", 8, []byte{0xff}, "not UTF-8"},

		{"Envelope, room", 0, []byte{0}, "unknown value"},
		{"Envelope, room", 0, []byte{3}, "unknown value"},
		{"Envelope, room", 17, []byte{1}, "session in a room envelope"},
		{"Envelope, pair", -1, cat([]byte{2}, make([]byte, MaxEnvelope)), "too long"},
		{"payload", 0, []byte{0}, "unknown value"},
		{"payload", 0, []byte{14}, "unknown value"},
		{"Candidates", 32, []byte{0}, "count out of range"},
		{"Candidates", 32, []byte{33}, "count out of range"},
		{"Candidates", 33, u16(1025), "field too long"},
		{"Candidates", 35, []byte{0xff}, "not UTF-8"},
		{"Candidates", -1, cat(make([]byte, 32), []byte{1, 0, 0, 65}, make([]byte, 69)), "field too long"},
		{"Candidates", -1, cat(make([]byte, 32), []byte{1, 0, 0, 0, 0, 0}, u16(257), make([]byte, 257)), "field too long"},
		{"Candidates", -1, cat(make([]byte, 32), []byte{1, 0, 0, 1, 0xff, 0, 0, 0, 0}), "not UTF-8"},
		{"Candidates", -1, cat(make([]byte, 32), []byte{1, 0, 0, 0, 0, 0, 0, 1, 0xff}), "not UTF-8"},
		{"Restart, Restarted", -1, cat(make([]byte, 4), u16(MaxSDP+1), make([]byte, MaxSDP+1)), "field too long"},
		{"Restart, Restarted", 6, []byte{0xff}, "not UTF-8"},

		{"Join", 2025, []byte{65}, "field too long"},
		{"Join", 2026, []byte{0xff}, "not UTF-8"},
		{"Roster", 25, []byte{4}, "unknown value"},
		{"Roster", 43, []byte{0}, "count out of range"},
		{"Roster", 43, []byte{65}, "count out of range"},
		{"Refuse", 49, []byte{0}, "unknown value"},
		{"Refuse", 49, []byte{6}, "unknown value"},
		{"Offer", 3325, u16(MaxSDP + 1), "field too long"},
		{"Offer", 3327, []byte{0xff}, "not UTF-8"},
		{"Answer", 3221, u16(MaxSDP + 1), "field too long"},
		{"Answer", 3223, []byte{0xff}, "not UTF-8"},

		{"record, control, data", 0, u32(13 + 19), "wrong length"},
		{"record, control, data", 0, u32(13 + 21), "wrong length"},
		{"record, control, data", 0, u32(1<<32 - 1), "wrong length"},
		{"record, control, data", 4, []byte{0}, "unknown value"},
		{"record, control, data", 4, []byte{4}, "unknown value"},
		{"record, control, data", -1, cat(u32(65030), []byte{2}, make([]byte, 65029)), "wrong length"},
		{"record, bulk, key", -1, cat(u32(4_259_837), []byte{2}, make([]byte, 4_259_836)), "wrong length"},
		{"record, bulk, key", -1, cat(u32(13+15), []byte{3}, make([]byte, 12+15)), "too short"},

		{"Ping, control", -1, make([]byte, MaxControl+1), "too long"},
		{"Profile", 1, []byte{65}, "field too long"},
		{"Profile", 2, []byte{0xff}, "not UTF-8"},
		{"Bye", 1, []byte{0}, "unknown value"},
		{"Bye", 1, []byte{6}, "unknown value"},
		{"Offer, control", 17, []byte{2}, "unknown value"},
		{"Offer, control", 18, u32(0), "chunk size"},
		{"Offer, control", 18, u32(32 << 10), "chunk size"},
		{"Offer, control", 18, u32(96 << 10), "chunk size"},
		{"Offer, control", 18, u32(8 << 20), "chunk size"},
		{"Offer, control", 22, u32(0), "number of files"},
		{"Offer, control", 22, u32(100_001), "number of files"},
		{"Offer, control", 26, u64(1 << 53), "total size"},
		{"Offer, control", 34, u32(0), "manifest length"},
		{"Offer, control", 34, u32(16<<20 + 1), "manifest length"},
		{"Offer, control", 70, []byte{0}, "count out of range"},
		{"Offer, control", 70, []byte{65}, "count out of range"},
		{"ManifestPart", -1, cat([]byte{17}, make([]byte, 22)), "empty part"},
		{"ManifestPart", -1, cat([]byte{17}, make([]byte, 20), u16(32769), make([]byte, 32769)), "field too long"},
		{"Have", 37, u16(4097), "count out of range"},
		{"Have", 43, u32(0), "runs out of order"},
		{"Have", 43, u32(4), "runs out of order"}, // overlaps the next one
		{"Have", 47, u32(2), "runs out of order"},
		{"Have", 47, cat(u32(1<<32-1), u32(1<<32-1)), "runs out of order"}, // ends beyond 32 bits
		{"Accept", -1, cat([]byte{19}, make([]byte, 24), u16(12_501), make([]byte, 12_501)), "field too long"},
		{"Decline", 17, []byte{201}, "field too long"},
		{"Decline", 18, []byte{0xff}, "not UTF-8"},
		{"Receipt", 49, u16(12_501), "field too long"},
		{"Cancel", 33, []byte{0}, "unknown value"},
		{"Cancel", 33, []byte{11}, "unknown value"},
		{"FileFailed", 21, []byte{0}, "unknown value"},
		{"FileFailed", 21, []byte{11}, "unknown value"},
		{"Receipt", 52, []byte{2}, "unknown value"},
		{"Pause", 33, []byte{4}, "unknown value"},

		{"Hashes", 33, u16(0), "count out of range"},
		{"Hashes", 33, u16(1025), "count out of range"},
		{"Hashes", 43, u16(0), "count out of range"},
		{"Hashes", 43, u16(1025), "count out of range"},
		{"Hashes", -1, cat([]byte{1}, make([]byte, 32), u16(2), make([]byte, 8), u16(512), make([]byte, 512*32),
			make([]byte, 8), u16(513), make([]byte, 513*32)), "too many hashes"},
		{"Chunks", 33, u16(0), "count out of range"},
		{"Chunks", 33, u16(1025), "count out of range"},
		{"Chunks", 43, []byte{2}, "unknown value"},
		{"Chunks", 44, u32(0), "chunk length"},
		{"Chunks", 44, u32(6), "chunk length"},            // not compressed, and yet shorter
		{"Chunks", 48, u32(0), "chunk length"},            // no data
		{"Chunks", 61, u32(6), "chunk length"},            // compressed to more
		{"Chunks", 65, u32(8), "data length"},             // more than there is
		{"Chunks", 65, u32(6), "data length"},             // less than there is
		{"Chunks", 61, u32(4<<20 - 5 + 1), "data length"}, // more than a chunk in all
		{"Chunks", 61, u32(1<<32 - 1), "data length"},
		{"End", 49, u16(12_501), "field too long"},
		{"manifest", 0, []byte{3}, "unknown value"},
		{"manifest", 1, u64(1 << 53), "size"},
		{"manifest", 1, u64(5_000_000_001), "total size"},
		{"manifest", 1, u64(4_999_999_999), "total size"},
		{"manifest", 18, []byte{0xff}, "not UTF-8"},
		{"manifest", 29, []byte{0xff}, "not UTF-8"},
		{"manifest", 27, u16(4097), "field too long"},
	} {
		s := sampleNamed(c.sample)
		p := c.with
		if c.at >= 0 {
			p = s.patched(c.at, c.with...)
		}
		if _, _, err := s.parse(p); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s at %d: error %v, want %q", c.sample, c.at, err, c.why)
		}
	}
}

func TestRefusesManifests(t *testing.T) {
	for _, c := range []struct {
		name  string
		list  []FileEntry
		files uint32
		total uint64
		why   string // "": none
	}{
		{"largest", []FileEntry{{KindFile, MaxTotalSize, 0, strings.Repeat("m", 255), strings.Repeat("p", MaxPath)}}, 1, MaxTotalSize, ""},
		{"text of 1 MiB", []FileEntry{{Kind: KindText, Size: MaxText, Path: "p"}}, 1, MaxText, ""},
		{"text beyond", []FileEntry{{Kind: KindText, Size: MaxText + 1, Path: "p"}}, 1, MaxText + 1, "size"},
		{"directory with a size", []FileEntry{{Kind: KindDirectory, Size: 1, Path: "p"}}, 1, 1, "size"},
		{"no file", nil, 0, 0, "count out of range"},
		{"too many files", []FileEntry{{Path: "p"}}, 100_001, 0, "count out of range"},
		{"fewer files than said", []FileEntry{{Path: "p"}}, 2, 0, "too short"},
		{"more files than said", []FileEntry{{Path: "p"}, {Path: "q"}}, 1, 0, "trailing bytes"},
		{"more bytes than said", []FileEntry{{Size: 5, Path: "p"}, {Size: 5, Path: "q"}}, 2, 9, "total size"},
		{"fewer bytes than said", []FileEntry{{Size: 5, Path: "p"}, {Size: 5, Path: "q"}}, 2, 11, "total size"},
		{"sizes that overflow", []FileEntry{{Size: 1 << 63, Path: "p"}, {Size: 1 << 63, Path: "q"}}, 2, 0, "size"},
	} {
		list, err := ParseManifest(appendManifest(c.list, nil), c.files, c.total)
		if c.why == "" && (err != nil || len(list) != len(c.list)) ||
			c.why != "" && (list != nil || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s: %d files, error %v; want %q", c.name, len(list), err, c.why)
		}
	}
	if _, err := ParseManifest(cat([]byte{0}, make([]byte, 16), []byte{1, 'm', 0, 0}), 1, 0); err == nil || !strings.Contains(err.Error(), "empty path") {
		t.Errorf("empty path: error %v", err)
	}
}

func TestRecordSize(t *testing.T) {
	for _, c := range []struct {
		ch     Channel
		length uint32
		ok     bool
	}{
		{Control, 0, false}, {Control, 12, false}, {Control, 13, true}, {Control, 65_029, true}, {Control, 65_030, false},
		{Bulk, 65_030, true}, {Bulk, 4_259_836, true}, {Bulk, 4_259_837, false}, {Bulk, 1<<32 - 1, false},
	} {
		n, err := RecordSize(u32(c.length), c.ch)
		if c.ok && (err != nil || n != int(c.length)+4) || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("channel %d, length %d: %d, %v", c.ch, c.length, n, err)
		}
	}
	if _, err := RecordSize(make([]byte, 3), Bulk); !errors.Is(err, ErrMalformed) {
		t.Errorf("3 bytes: error %v", err)
	}
	if MaxRecord(Control) > MessageSize {
		t.Error("a record of the control channel must be one message")
	}
}

// TestLimitsHold parses messages that are as large as the limits let them be.
func TestLimitsHold(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	server := ICEServer{[]string{text(512), text(512), text(512), text(512), text(512), text(512), text(512), text(512)}, text(512), text(512)}
	servers := ICEServers{RelayOnly: true, TTL: 1<<32 - 1}
	for range 16 {
		servers.Servers = append(servers.Servers, server)
	}
	least := ICEServers{Servers: []ICEServer{{URLs: []string{""}}}}
	candidate := Candidate{text(1024), text(64), 65535, text(256)}
	var candidates []Candidate
	for range MaxCandidates {
		candidates = append(candidates, candidate)
	}
	if !candidate.Fits() {
		t.Error("a candidate at the limits does not fit")
	}
	for _, c := range []Candidate{{Candidate: text(1025)}, {SDPMid: text(65)}, {UsernameFragment: text(257)}} {
		if c.Fits() {
			t.Errorf("%d, %d, %d bytes fit", len(c.Candidate), len(c.SDPMid), len(c.UsernameFragment))
		}
	}
	runs := make([]Run, MaxHaveRuns)
	for i := range runs {
		runs[i] = Run{uint32(2 * i), 1}
	}
	runs[MaxHaveRuns-1].Count = 1 << 31
	hashRuns := make([]HashRun, MaxHashes)
	entries := make([]ChunkEntry, MaxRun)
	for i := range entries {
		hashRuns[i] = HashRun{1, uint32(2 * i), make([]byte, 32)}
		entries[i] = ChunkEntry{uint32(i), 0, false, 4096, 4096}
	}
	keys, signature := make([]byte, KeysSize), make([]byte, SignatureSize)
	chunk := make([]byte, MaxChunkSize)
	bitmap := NewBitmap(MaxFiles)
	like := func(name string, p []byte) (string, []byte) { return name, p }
	check := func(name string, p []byte) {
		t.Helper()
		_, again, err := sampleNamed(name).parse(p)
		if err != nil || !bytes.Equal(again, p) {
			t.Errorf("%s of %d bytes: %v", name, len(p), err)
		}
	}
	check(like("Send", Relay{ID{}, make([]byte, MaxEnvelope)}.Append(nil, HubSend)))
	check(like("ICEServers", servers.Append(nil)))
	check(like("ICEServers", least.Append(nil)))
	check(like("Entered", Entered{65535, ICEServers{}, make([]ID, 2048)}.Append(nil)))
	check(like("Closing", Closing{65535, 1<<32 - 1, text(255)}.Append(nil)))
	check(like("Envelope, room", Envelope{Kind: RoomEnvelope, Ciphertext: make([]byte, MaxPayload+TagSize)}.Append(nil)))
	check(like("Candidates", Candidates{Hash{}, candidates}.Append(nil)))
	check(like("Restart, Restarted", Restart{1<<32 - 1, text(MaxSDP)}.Append(nil)))
	check(like("Join", Join{Keys: keys, Name: text(MaxName), Signature: signature}.Append(nil)))
	check(like("Roster", Roster{Locked: true, Approval: true, Members: make([]Hash, MaxRoster), Keys: keys, Signature: signature}.Append(nil)))
	check(like("Offer", Offer{Keys: keys, KEMPublicKey: make([]byte, 1216), SDP: text(MaxSDP), Signature: signature}.Append(nil)))
	check(like("Offer, control", TransferOffer{ID{}, false, MaxChunkSize, MaxFiles, MaxTotalSize, MaxManifest, Hash{}, make([]ID, 64)}.Append(nil)))
	check(like("Offer, control", TransferOffer{ID{}, false, MinChunkSize, 1, 0, 1, Hash{}, make([]ID, 1)}.Append(nil)))
	check(like("ManifestPart", ManifestPart{ID{}, 1<<32 - 1, make([]byte, MaxManifestPart)}.Append(nil)))
	check(like("Have", Have{Runs: runs}.Append(nil)))
	check(like("Have", Have{}.Append(nil)))
	check(like("Accept", Accept{Files: bitmap}.Append(nil)))
	check(like("Decline", Decline{ID{}, text(200)}.Append(nil)))
	check(like("Receipt", Receipt{Files: bitmap, Signature: signature}.Append(nil)))
	check(like("Hashes", Hashes{Runs: hashRuns}.Append(nil)))
	check(like("Hashes", Hashes{Runs: []HashRun{{1, 0, make([]byte, 32*MaxHashes)}}}.Append(nil)))
	check(like("Chunks", append(Chunks{Entries: entries}.AppendHead(nil), chunk...)))
	check(like("Chunks", append(Chunks{Entries: []ChunkEntry{{1, 2, false, MaxChunkSize, MaxChunkSize}}}.AppendHead(nil), chunk...)))
	check(like("End", End{Files: bitmap, Signature: signature}.Append(nil)))
	for ch, name := range map[Channel]string{Control: "record, control, data", Bulk: "record, bulk, key"} {
		ciphertext := make([]byte, MaxRecord(ch)-RecordHeaderSize)
		check(like(name, append(RecordHeader{uint32(MaxRecord(ch) - 4), RecordData, 1, 2}.Append(nil), ciphertext...)))
	}
	if n := ChunksOverhead(1) + MaxChunkSize; n > MaxBulk {
		t.Errorf("a chunk of %d bytes makes %d, more than %d", MaxChunkSize, n, MaxBulk)
	}
	if n := ChunksOverhead(MaxRun) + MaxChunkSize; n > MaxBulk {
		t.Errorf("%d chunks make %d bytes, more than %d", MaxRun, n, MaxBulk)
	}
}

// TestCountsAllocateNothing gives the largest counts with next to nothing behind them.
func TestCountsAllocateNothing(t *testing.T) {
	for _, c := range []struct {
		sample string
		at     int // of the count
		count  []byte
	}{
		{"ICEServers", 6, []byte{16}}, {"ICEServers", 7, []byte{8}}, {"Entered, alone", 9, u16(2048)}, {"Candidates", 32, []byte{32}},
		{"Roster", 43, []byte{64}}, {"Offer, control", 70, []byte{64}}, {"Have", 37, u16(4096)}, {"Hashes", 33, u16(1024)},
		{"Hashes", 43, u16(1024)}, {"Chunks", 33, u16(1024)}, {"Accept", 25, u16(12_500)}, {"Receipt", 49, u16(12_500)},
		{"ManifestPart", 21, u16(32_768)}, {"manifest", 27, u16(4096)},
	} {
		s := sampleNamed(c.sample)
		p := cat(s.bytes[:c.at], c.count, make([]byte, 2))
		if n := allocated(func() {
			if _, _, err := s.parse(p); err == nil {
				t.Errorf("%s: no error", c.sample)
			}
		}); n > 1500 { // the error itself, and what came before the count
			t.Errorf("%s: %d bytes allocated", c.sample, n)
		}
	}
	p := sampleNamed("manifest").bytes
	if n := allocated(func() { ParseManifest(p, MaxFiles, testTotal) }); n > 1500 {
		t.Errorf("manifest: %d bytes allocated", n)
	}
	if n := allocated(func() { RecordSize(u32(1<<32-1), Bulk) }); n > 1500 {
		t.Errorf("record: %d bytes allocated", n)
	}
}

// TestLengthsAllocateNothing writes the largest lengths and counts, 4 GiB among them, over every place of every message: no parser
// allocates more than a small multiple of what is there.
func TestLengthsAllocateNothing(t *testing.T) {
	for _, s := range samples() {
		for at := 0; at < len(s.bytes); at++ {
			if at > 160 && at%53 > 0 { // keys and signatures
				continue
			}
			for _, most := range [][]byte{{0xff, 0xff, 0xff, 0xff}, {0xff, 0xff}, {0xff}, {0, 0xff}} {
				p := s.patched(at, most...)
				short := p[:min(len(p), at+len(most)+2)]
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				s.parse(p)
				s.parse(short)
				runtime.ReadMemStats(&after)
				// The parsers of the samples append again what they have taken.
				if n := after.TotalAlloc - before.TotalAlloc; n > 32<<10+uint64(8*len(p)) {
					t.Errorf("%s with %x at %d: %d bytes allocated for %d", s.name, most, at, n, len(p))
				}
			}
		}
	}
}

// allocated is how many bytes a call of f allocates.
func allocated(f func()) uint64 {
	const rounds = 20
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / rounds
}

// TestSignedParts holds what parsers say is signed against what Append gives without signature and MAC.
func TestSignedParts(t *testing.T) {
	check := func(name string, part, want []byte, err error) {
		t.Helper()
		if err != nil || !bytes.Equal(part, want) {
			t.Errorf("%s: %x, %v; want %x", name, part, err, want)
		}
		if cap(part) != len(part) {
			t.Errorf("%s: appending to the part would write into the message", name)
		}
	}
	b := func(name string) []byte { return sampleNamed(name).bytes }

	join, signed, err := ParseJoin(b("Join"))
	join.Signature = nil
	check("Join", signed, join.Append(nil), err)
	roster, signed, err := ParseRoster(b("Roster"))
	roster.Signature = nil
	check("Roster", signed, roster.Append(nil), err)
	refuse, signed, err := ParseRefuse(b("Refuse"))
	refuse.Signature = nil
	check("Refuse", signed, refuse.Append(nil), err)
	offer, signed, err := ParseOffer(b("Offer"))
	offer.Signature = nil
	check("Offer", signed, offer.Append(nil), err)
	answer, signed, maced, err := ParseAnswer(b("Answer"))
	answer.MAC = nil
	check("Answer, MAC", maced, answer.Append(nil), err)
	answer.Signature = nil
	check("Answer", signed, answer.Append(nil), err)
	confirm, signed, maced, err := ParseConfirm(b("Confirm"))
	confirm.MAC = nil
	check("Confirm, MAC", maced, confirm.Append(nil), err)
	confirm.Signature = nil
	check("Confirm", signed, confirm.Append(nil), err)
}

// TestAppendPanics: what this program must not have built.
func TestAppendPanics(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	keys := make([]byte, KeysSize)
	for name, f := range map[string]func(){
		"empty envelope":    func() { Relay{}.Append(nil, HubSend) },
		"long envelope":     func() { Relay{Envelope: make([]byte, MaxEnvelope+1)}.Append(nil, HubSend) },
		"many ICE servers":  func() { ICEServers{Servers: make([]ICEServer, 17)}.Append(nil) },
		"no URL":            func() { ICEServers{Servers: make([]ICEServer, 1)}.Append(nil) },
		"many URLs":         func() { ICEServers{Servers: []ICEServer{{URLs: make([]string, 9)}}}.Append(nil) },
		"long URL":          func() { ICEServers{Servers: []ICEServer{{URLs: []string{long(513)}}}}.Append(nil) },
		"many present":      func() { Entered{Present: make([]ID, 2049)}.Append(nil) },
		"long reason":       func() { Closing{Reason: long(256)}.Append(nil) },
		"no candidate":      func() { Candidates{}.Append(nil) },
		"many candidates":   func() { Candidates{List: make([]Candidate, 33)}.Append(nil) },
		"short keys":        func() { Join{Keys: keys[1:]}.Append(nil) },
		"long name":         func() { Join{Keys: keys, Name: long(65)}.Append(nil) },
		"short signature":   func() { Join{Keys: keys, Signature: make([]byte, 1)}.Append(nil) },
		"no member":         func() { Roster{Keys: keys}.Append(nil) },
		"many members":      func() { Roster{Keys: keys, Members: make([]Hash, 65)}.Append(nil) },
		"short KEM key":     func() { Rekey{1, keys[:1215]}.Append(nil) },
		"long SDP":          func() { Restart{1, long(MaxSDP + 1)}.Append(nil) },
		"no participant":    func() { TransferOffer{}.Append(nil) },
		"many participants": func() { TransferOffer{Participants: make([]ID, 65)}.Append(nil) },
		"long part":         func() { ManifestPart{Data: make([]byte, MaxManifestPart+1)}.Append(nil) },
		"many runs":         func() { Have{Runs: make([]Run, MaxHaveRuns+1)}.Append(nil) },
		"long bitmap":       func() { Accept{Files: make(Bitmap, 12_501)}.Append(nil) },
		"unsigned receipt":  func() { Receipt{}.Append(nil) },
		"unsigned end":      func() { End{}.Append(nil) },
		"no hash run":       func() { Hashes{}.Append(nil) },
		"no hash":           func() { Hashes{Runs: make([]HashRun, 1)}.Append(nil) },
		"part of a hash":    func() { Hashes{Runs: []HashRun{{List: make([]byte, 33)}}}.Append(nil) },
		"many hashes":       func() { Hashes{Runs: []HashRun{{List: make([]byte, 1025*32)}}}.Append(nil) },
		"no chunk":          func() { Chunks{}.AppendHead(nil) },
		"many chunks":       func() { Chunks{Entries: make([]ChunkEntry, 1025)}.AppendHead(nil) },
		"empty path":        func() { FileEntry{}.Append(nil) },
		"long path":         func() { FileEntry{Path: long(4097)}.Append(nil) },
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "wire: ") {
					t.Errorf("%s: recovered %v", name, r)
				}
			}()
			f()
		}()
	}
}

func TestSmallThings(t *testing.T) {
	for _, s := range samples() {
		if s.section == "9" {
			m, err := ParseControl(s.bytes)
			if err != nil || byte(m.ControlType()) != s.bytes[0] {
				t.Errorf("%s says that its type is %d", s.name, m.ControlType())
			}
		}
	}
	if TypeOf(nil) != 0 || TypeOf([]byte{0x82, 1}) != HubDeliver || BulkTypeOf(nil) != 0 || BulkTypeOf([]byte{2, 1}) != BulkChunks {
		t.Error("type of a message")
	}
	if !(ID{}).IsZero() || id(1).IsZero() || id(1).String() != "0102030405060708090a0b0c0d0e0f10" || len(hash(1).String()) != 64 {
		t.Error("ids")
	}
	if FromInitiator.Other() != FromResponder || FromResponder.Other() != FromInitiator {
		t.Error("directions")
	}
	run := HashRun{List: pattern(0, 96)}
	if run.Count() != 3 || run.At(2) != hash(64) {
		t.Error("hashes of a run")
	}
	if ChunkCost(100) != 164 || ChunkCost(1<<32-1) != 1<<32+63 {
		t.Error("cost of a chunk")
	}
	for n := range 3 {
		if got := len(Chunks{Entries: make([]ChunkEntry, n+1)}.AppendHead(nil)); got != ChunksOverhead(n+1) {
			t.Errorf("%d entries take %d bytes, not %d", n+1, got, ChunksOverhead(n+1))
		}
	}
	n := Nonce([12]byte{11: 0xff}, 1<<56|1)
	if n != [12]byte{4: 1, 11: 0xfe} {
		t.Errorf("nonce %x", n)
	}
}

func TestBitmap(t *testing.T) {
	b := NewBitmap(11)
	if len(b) != 2 || !b.Fits(11) || !b.Fits(9) || b.Fits(8) || b.Fits(17) || !NewBitmap(8).Fits(8) || !NewBitmap(0).Fits(0) {
		t.Error("length")
	}
	b.Set(0)
	b.Set(10)
	if !bytes.Equal(b, []byte{1, 4}) || !b.Has(0) || !b.Has(10) || b.Has(1) || b.Has(16) || b.Has(1<<32-1) {
		t.Errorf("%08b", b)
	}
	if !b.Fits(11) || b.Fits(10) {
		t.Error("a bit beyond the files does not fit")
	}
	b.Clear(10)
	b.Clear(1 << 31)
	if !bytes.Equal(b, []byte{1, 0}) {
		t.Errorf("%08b", b)
	}
}
