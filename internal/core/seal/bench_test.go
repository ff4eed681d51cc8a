package seal

import (
	"testing"

	"tallow/internal/core/wire"
)

func BenchmarkNewIdentity(b *testing.B) {
	for b.Loop() {
		if _, err := NewIdentity([32]byte{1}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	id, message := members()[0], make([]byte, 32)
	for i := byte(0); b.Loop(); i++ { // how long ML-DSA takes depends on the message
		message[0] = i
		id.Sign(LabelOffer, message)
	}
}

func BenchmarkNewVerifier(b *testing.B) {
	keys := members()[0].PublicKeys()
	for b.Loop() {
		if _, err := NewVerifier(keys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	id := members()[0]
	v, err := NewVerifier(id.PublicKeys())
	if err != nil {
		b.Fatal(err)
	}
	signature := id.Sign(LabelOffer, nil)
	for b.Loop() {
		if err := v.Verify(LabelOffer, nil, signature); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandshake is both sides together.
func BenchmarkHandshake(b *testing.B) {
	ic, rc := configs()
	ic.Rand, rc.Rand = nil, nil
	for b.Loop() {
		newPair(b, ic, rc).run(b, 5)
	}
}

// BenchmarkRekey is both sides together.
func BenchmarkRekey(b *testing.B) {
	p := testPair(b, 5)
	i, r := p.i.Session(), p.r.Session()
	for epoch := uint32(0); b.Loop(); epoch++ {
		rekey(b, i, r)
		i.Retire(epoch)
		r.Retire(epoch)
	}
}

// BenchmarkEnvelope seals and opens one of the size of an offer.
func BenchmarkEnvelope(b *testing.B) {
	room := testLink().Keys()
	from, to := members()[0].ID(), members()[1].ID()
	payload := make([]byte, 8<<10)
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := room.OpenEnvelope(from, to, room.SealEnvelope(from, to, wire.ID{1}, payload)); err != nil {
			b.Fatal(err)
		}
	}
}
