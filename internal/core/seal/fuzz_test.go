package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"tallow/internal/core/wire"
)

// The fuzz targets look for panics, for untyped errors, and for damaged messages that are accepted: the seeds are genuine
// messages, and whatever else is accepted is a forgery. Run them with a small -fuzzminimizetime: shrinking a message of
// fixed length leads nowhere and would take all the time.

func FuzzParseLink(f *testing.F) {
	f.Add(testLink().Fragment())
	f.Add("https://example.org/#" + testLink().Fragment())
	f.Add("#v2.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			if !errors.Is(err, ErrLink) && !errors.Is(err, ErrLinkVersion) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		if again, err := ParseLink(l.Fragment()); err != nil || again != l {
			t.Errorf("%q does not survive", s)
		}
	})
}

func FuzzFingerprint(f *testing.F) {
	f.Add(testSDP("A1"))
	f.Add(testSDP("A1") + testSDP("B2"))
	f.Add(testSDP("A1") + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n")
	f.Fuzz(func(t *testing.T, sdp string) {
		got, err := Fingerprint(sdp)
		if err != nil {
			if !errors.Is(err, ErrSDP) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		// A parser that trims lines and minds no case sees the same.
		media := 0
		for line := range strings.FieldsFuncSeq(sdp, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "m") {
				media++
			}
		}
		if media != 1 {
			t.Errorf("%d media sections", media)
		}
		digits := strings.ToLower(strings.ReplaceAll(sdp, ":", ""))
		if !strings.Contains(digits, hex.EncodeToString(got[:])) {
			t.Errorf("a fingerprint from nowhere: %x", got)
		}
	})
}

func fuzzEnvelope(f *testing.F, genuine []byte, open func(p []byte) ([]byte, error)) {
	f.Add(genuine)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := open(p); err == nil && !bytes.Equal(p, genuine) {
			t.Error("forged")
		} else if err != nil && !errors.Is(err, ErrEnvelope) {
			t.Errorf("untyped: %v", err)
		}
	})
}

func FuzzOpenRoomEnvelope(f *testing.F) {
	room := testLink().Keys()
	a, b := members()[0].ID(), members()[1].ID()
	fuzzEnvelope(f, room.box(a, b).seal(wire.ID{1}, [32]byte{2}, []byte("payload")),
		func(p []byte) ([]byte, error) { return room.OpenEnvelope(a, b, p) })
}

func FuzzOpenPairEnvelope(f *testing.F) {
	p := testPair(f, 5)
	s := p.i.Session()
	fuzzEnvelope(f, s.box(s.self, s.peer, s.direction).seal(wire.ID{1}, [32]byte{2}, []byte("payload")), p.r.Session().OpenEnvelope)
}

func FuzzVerifyJoin(f *testing.F) {
	room := wire.ID{1}
	f.Add(SignJoin(members()[0], wire.Join{Room: room, Name: "a"}))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := VerifyJoin(room, p)
		if err != nil {
			if !errors.Is(err, ErrAdmission) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		// A newcomer is anybody, so any key pair's join is good; the message must be the one that was signed.
		if !bytes.Equal(m.Append(nil), p) {
			t.Error("parsed and appended differ")
		}
	})
}

func FuzzVerifyRoster(f *testing.F) {
	room, owner := wire.ID{1}, members()[0]
	genuine := SignRoster(owner, wire.Roster{Room: room, Members: []wire.Hash{owner.KeyHash()}})
	f.Add(genuine)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := VerifyRoster(room, owner.ID(), p); err == nil && !bytes.Equal(p, genuine) {
			t.Error("forged")
		} else if err != nil && !errors.Is(err, ErrAdmission) {
			t.Errorf("untyped: %v", err)
		}
	})
}

func FuzzVerifyRefuse(f *testing.F) {
	room, owner := wire.ID{1}, members()[0]
	genuine := SignRefuse(owner, wire.Refuse{Room: room, Code: wire.RefuseFull})
	f.Add(genuine)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := VerifyRefuse(room, owner.ID(), p); err == nil && !bytes.Equal(p, genuine) {
			t.Error("forged")
		} else if err != nil && !errors.Is(err, ErrAdmission) {
			t.Errorf("untyped: %v", err)
		}
	})
}

// fuzzStep fuzzes the message that a handshake waits for.
func fuzzStep(f *testing.F, genuine []byte, take func(p []byte) error) {
	f.Add(genuine)
	f.Fuzz(func(t *testing.T, p []byte) {
		if err := take(p); err == nil && !bytes.Equal(p, genuine) {
			t.Error("forged")
		} else if err != nil && !errors.Is(err, ErrHandshake) {
			t.Errorf("untyped: %v", err)
		}
	})
}

func FuzzHello(f *testing.F) {
	p := testPair(f, 0)
	f.Add(p.m0)
	f.Fuzz(func(t *testing.T, m0 []byte) {
		i := p.i.clone()
		i.config.Rand = deterministic("fuzz")
		m1, err := i.Offer(m0, testSDP("A1"))
		if err != nil {
			if !errors.Is(err, ErrHandshake) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		// A Hello proves nothing: an offer to another one than the responder's is refused there.
		if _, err := p.r.clone().Offer(m1); err == nil && !bytes.Equal(m0, p.m0) {
			t.Error("forged")
		}
	})
}

func FuzzOffer(f *testing.F) {
	p := testPair(f, 1)
	fuzzStep(f, p.m1, func(m1 []byte) error { _, err := p.r.clone().Offer(m1); return err })
}

func FuzzAnswer(f *testing.F) {
	p := testPair(f, 2)
	fuzzStep(f, p.m2, func(m2 []byte) error { _, err := p.i.clone().Answer(m2); return err })
}

func FuzzConfirm(f *testing.F) {
	p := testPair(f, 3)
	fuzzStep(f, p.m3, func(m3 []byte) error { _, err := p.r.clone().Confirm(m3); return err })
}

func FuzzReveal(f *testing.F) {
	p := testPair(f, 4)
	fuzzStep(f, p.m4, func(m4 []byte) error { return p.i.clone().Reveal(m4) })
}

func FuzzRekey(f *testing.F) {
	p := testPair(f, 5)
	message, err := p.i.Session().StartRekey()
	if err != nil {
		f.Fatal(err)
	}
	reply, err := p.r.Session().clone().AnswerRekey(message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message, reply)
	f.Fuzz(func(t *testing.T, m, reply []byte) {
		r := p.r.Session().clone()
		r.rand = deterministic("fuzz")
		if _, err := r.AnswerRekey(m); err != nil && !errors.Is(err, ErrRekey) {
			t.Errorf("untyped: %v", err)
		}
		if err := p.i.Session().clone().FinishRekey(reply); err != nil && !errors.Is(err, ErrRekey) {
			t.Errorf("untyped: %v", err)
		}
	})
}
