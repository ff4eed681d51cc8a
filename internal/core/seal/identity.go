package seal

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"tallow/internal/core/wire"
)

// Label says what a signature is for; one for a purpose is worth nothing for another.
type Label string

// The purposes of signatures.
const (
	LabelJoin    Label = "join"
	LabelRoster  Label = "roster"
	LabelRefuse  Label = "refuse"
	LabelOffer   Label = "offer"   // of the handshake
	LabelAnswer  Label = "answer"  // of the handshake
	LabelConfirm Label = "confirm" // of the handshake
	LabelEnd     Label = "end"     // of a delivery
	LabelReceipt Label = "receipt" // for a delivery
)

// The errors of keys and signatures.
var (
	// ErrKeys means public keys of a wrong length, or others than those expected.
	ErrKeys = errors.New("seal: wrong public keys")
	// ErrSignature means a signature that does not verify.
	ErrSignature = errors.New("seal: wrong signature")
	// ErrSeed means a seed that nobody drew.
	ErrSeed = errors.New("seal: empty seed")
)

// Identity is a member's signing keys in one room: Ed25519 and ML-DSA-65, PROTOCOL.md section 3.
type Identity struct {
	keyHash wire.Hash
	claim   wire.ID
	keys    []byte
	ed      ed25519.PrivateKey
	ml      *mldsa65.PrivateKey // kept expanded: expanding takes about as long as signing
}

// NewIdentity derives the identity that a seed stands for. An all-zero seed, the sign of a read that failed, is ErrSeed.
func NewIdentity(seed [32]byte) (*Identity, error) {
	defer wipe(seed[:])
	if seed == [32]byte{} {
		return nil, ErrSeed
	}
	prk := extract([]byte("tallow v1 identity"), seed[:])
	var edSeed, mlSeed [32]byte
	defer wipe(prk, edSeed[:], mlSeed[:])
	expandInto(edSeed[:], prk, "ed25519", nil)
	expandInto(mlSeed[:], prk, "ml-dsa-65", nil)

	id := &Identity{ed: ed25519.NewKeyFromSeed(edSeed[:])}
	mlPublic, mlPrivate := mldsa65.NewKeyFromSeed(&mlSeed)
	id.ml = mlPrivate
	id.keys = append(append(id.keys, id.ed.Public().(ed25519.PublicKey)...), mlPublic.Bytes()...)
	id.keyHash = hashKeys(id.keys)
	expandInto(id.claim[:], prk, "hub claim", nil)
	return id, nil
}

// ID is the member id: the first 16 bytes of the key hash.
func (id *Identity) ID() wire.ID { return idOf(id.keyHash) }

// KeyHash is the hash of the public keys, as a roster lists it.
func (id *Identity) KeyHash() wire.Hash { return id.keyHash }

// PublicKeys is the member's public keys, wire.KeysSize bytes, which the caller must not change.
func (id *Identity) PublicKeys() []byte { return id.keys }

// Claim is what proves to the hub that it is the same member that enters again.
func (id *Identity) Claim() wire.ID { return id.claim }

// Sign signs a message with both keys: wire.SignatureSize bytes.
func (id *Identity) Sign(label Label, message []byte) []byte {
	m := Signed(label, message)
	signature := make([]byte, wire.SignatureSize)
	copy(signature, ed25519.Sign(id.ed, m))
	err := mldsa65.SignTo(id.ml, m, nil, false, signature[ed25519.SignatureSize:])
	must(err == nil, "ML-DSA refused an empty context")
	return signature
}

// Destroy overwrites the private keys. The identity must not sign afterwards.
func (id *Identity) Destroy() {
	wipe(id.ed, id.claim[:])
	*id.ml = mldsa65.PrivateKey{}
}

// Verifier is a member's public keys, made ready to verify.
type Verifier struct {
	keyHash wire.Hash
	keys    []byte
	ed      ed25519.PublicKey
	ml      mldsa65.PublicKey
}

// NewVerifier reads public keys, which it copies. The error is ErrKeys. Whoever verifies more than one signature of a
// member keeps the Verifier: making it takes up to as long as verifying with it.
func NewVerifier(keys []byte) (*Verifier, error) {
	hash, err := KeyHash(keys)
	if err != nil {
		return nil, err
	}
	v := &Verifier{keyHash: hash, keys: append([]byte(nil), keys...)}
	v.ed = ed25519.PublicKey(v.keys[:ed25519.PublicKeySize])
	v.ml.Unpack((*[mldsa65.PublicKeySize]byte)(v.keys[ed25519.PublicKeySize:]))
	return v, nil
}

// ID is the member id that the keys stand for.
func (v *Verifier) ID() wire.ID { return idOf(v.keyHash) }

// KeyHash is the hash of the keys.
func (v *Verifier) KeyHash() wire.Hash { return v.keyHash }

// PublicKeys is the keys, which the caller must not change.
func (v *Verifier) PublicKeys() []byte { return v.keys }

// Verify checks a signature; both parts must verify. The error is ErrSignature.
func (v *Verifier) Verify(label Label, message, signature []byte) error {
	if len(signature) != wire.SignatureSize {
		return ErrSignature
	}
	m := Signed(label, message)
	if !ed25519.Verify(v.ed, m, signature[:ed25519.SignatureSize]) ||
		!mldsa65.Verify(&v.ml, m, nil, signature[ed25519.SignatureSize:]) {
		return ErrSignature
	}
	return nil
}

// VerifySignature checks one signature by public keys. The error is ErrKeys or ErrSignature.
func VerifySignature(keys []byte, label Label, message, signature []byte) error {
	v, err := NewVerifier(keys)
	if err != nil {
		return err
	}
	return v.Verify(label, message, signature)
}

// KeyHash is the hash of public keys, whose first 16 bytes are the member id. The error is ErrKeys, for a wrong length.
func KeyHash(keys []byte) (wire.Hash, error) {
	if len(keys) != wire.KeysSize {
		return wire.Hash{}, fmt.Errorf("%w: %d bytes", ErrKeys, len(keys))
	}
	return hashKeys(keys), nil
}

func hashKeys(keys []byte) wire.Hash { return labelled("tallow v1 member", keys) }

func idOf(keyHash wire.Hash) wire.ID { return wire.ID(keyHash[:16]) }

// Signed is what a signature is over.
func Signed(label Label, message []byte) []byte {
	m := make([]byte, 0, len("tallow v1 ")+len(label)+1+len(message))
	return append(append(append(append(m, "tallow v1 "...), label...), 0), message...)
}
