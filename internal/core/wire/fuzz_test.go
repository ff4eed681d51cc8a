package wire

import (
	"bytes"
	"errors"
	"testing"
)

// fuzz feeds the parser of the samples named: it never panics, fails with ErrMalformed, and what it takes, it gives back.
func fuzz(f *testing.F, names ...string) {
	for _, name := range names {
		f.Add(sampleNamed(name).bytes)
	}
	parse := sampleNamed(names[0]).parse
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		switch _, again, err := parse(p); {
		case err != nil && !errors.Is(err, ErrMalformed):
			t.Errorf("error %v", err)
		case err == nil && !bytes.Equal(again, p):
			t.Errorf("%x appends to %x", p, again)
		}
		if !bytes.Equal(p, before) {
			t.Error("the parser wrote into its input")
		}
	})
}

func FuzzEnter(f *testing.F)          { fuzz(f, "Enter") }
func FuzzSend(f *testing.F)           { fuzz(f, "Send") }
func FuzzDeliver(f *testing.F)        { fuzz(f, "Deliver") }
func FuzzBare(f *testing.F)           { fuzz(f, "Ping") }
func FuzzEntered(f *testing.F)        { fuzz(f, "Entered", "Entered, alone") }
func FuzzICEServers(f *testing.F)     { fuzz(f, "ICEServers") }
func FuzzPresence(f *testing.F)       { fuzz(f, "Present") }
func FuzzClosing(f *testing.F)        { fuzz(f, "Closing") }
func FuzzEnvelope(f *testing.F)       { fuzz(f, "Envelope, room", "Envelope, pair") }
func FuzzPayload(f *testing.F)        { fuzz(f, "payload") }
func FuzzKnock(f *testing.F)          { fuzz(f, "Knock") }
func FuzzCandidates(f *testing.F)     { fuzz(f, "Candidates") }
func FuzzAck(f *testing.F)            { fuzz(f, "Ack") }
func FuzzRestart(f *testing.F)        { fuzz(f, "Restart, Restarted") }
func FuzzRestartRequest(f *testing.F) { fuzz(f, "RestartRequest") }
func FuzzLost(f *testing.F)           { fuzz(f, "Lost") }
func FuzzJoin(f *testing.F)           { fuzz(f, "Join") }
func FuzzRoster(f *testing.F)         { fuzz(f, "Roster", "Roster, by approval") }
func FuzzRefuse(f *testing.F)         { fuzz(f, "Refuse") }
func FuzzHello(f *testing.F)          { fuzz(f, "Hello") }
func FuzzOffer(f *testing.F)          { fuzz(f, "Offer") }
func FuzzAnswer(f *testing.F)         { fuzz(f, "Answer") }
func FuzzConfirm(f *testing.F)        { fuzz(f, "Confirm") }
func FuzzHashes(f *testing.F)         { fuzz(f, "Hashes") }
func FuzzChunks(f *testing.F)         { fuzz(f, "Chunks") }
func FuzzEnd(f *testing.F)            { fuzz(f, "End") }

func FuzzControl(f *testing.F) {
	var names []string
	for _, s := range samples() {
		if s.section == "9" {
			names = append(names, s.name)
		}
	}
	fuzz(f, names...)
}

func FuzzRecord(f *testing.F) {
	for _, name := range []string{"record, control, confirm", "record, control, data", "record, bulk, key"} {
		f.Add(sampleNamed(name).bytes, byte(0))
		f.Add(sampleNamed(name).bytes, byte(1))
	}
	f.Fuzz(func(t *testing.T, p []byte, channel byte) {
		ch := Channel(channel & 1)
		size, sizeErr := RecordSize(p, ch)
		h, ciphertext, err := ParseRecord(p, ch)
		switch {
		case err != nil && !errors.Is(err, ErrMalformed), sizeErr != nil && !errors.Is(sizeErr, ErrMalformed):
			t.Errorf("errors %v, %v", err, sizeErr)
		case err == nil && (sizeErr != nil || size != len(p) || !bytes.Equal(append(h.Append(nil), ciphertext...), p)):
			t.Errorf("%x appends to %x of size %d, %v", p, append(h.Append(nil), ciphertext...), size, sizeErr)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(sampleNamed("manifest").bytes, uint32(testFiles), uint64(testTotal))
	f.Fuzz(func(t *testing.T, p []byte, files uint32, total uint64) {
		list, err := ParseManifest(p, files, total)
		switch {
		case err != nil && !errors.Is(err, ErrMalformed):
			t.Errorf("error %v", err)
		case err == nil && (len(list) != int(files) || !bytes.Equal(appendManifest(list, nil), p)):
			t.Errorf("%x appends to %x", p, appendManifest(list, nil))
		}
	})
}

// FuzzBitmap: a bitmap that fits a number of files names none beyond, and every parsed one answers for each index.
func FuzzBitmap(f *testing.F) {
	f.Add([]byte{0x05}, uint16(3), uint32(2))
	f.Add([]byte{0xff, 0x01}, uint16(9), uint32(1<<32-1))
	f.Add([]byte{}, uint16(0), uint32(0))
	f.Fuzz(func(t *testing.T, p []byte, n uint16, i uint32) {
		b := Bitmap(bytes.Clone(p))
		if b.Has(i) && uint64(i) >= 8*uint64(len(b)) {
			t.Errorf("%d is in %d bytes", i, len(b))
		}
		if b.Fits(int(n)) {
			for j := uint32(n); j < uint32(n)+64; j++ {
				if b.Has(j) {
					t.Errorf("%x fits %d files and has %d", b, n, j)
				}
			}
		}
		if b.Clear(i); b.Has(i) {
			t.Errorf("%d is still there", i)
		}
	})
}
