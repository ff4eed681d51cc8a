package transfer

import (
	"path"
	"slices"
	"strings"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/wire"
)

const (
	// leastDeflate is the length from which on a chunk is compressed: below, the work around it costs more.
	leastDeflate = 1 << 10
	// sampleLength is how much of a chunk is tried, from its middle, to see what compressing would bring. Chunks up to twice as long are
	// tried as a whole.
	sampleLength = 16 << 10
	// mostLeft is the share of the bytes that compressing may leave at most, to be of any use.
	mostLeft = 0.9
	// mostRest is how many chunks go untried at most where trying has shown that it does not pay.
	mostRest = 64
	// margin is how much more time compressing must save on the link than it takes: the processor that it takes has other work, such as
	// driving the link, and the recipient has to inflate.
	margin = 2
	// maxDeflating is how many chunks are compressed at a time: one is worked on, and one is ready to be.
	maxDeflating = 2
)

// compression decides what travels compressed, by trying on the data itself: where that saves more time on the recipient's link, as fast
// as it is at the moment, than it takes. It is part of the machine.
type compression struct {
	off     bool
	least   int                 // length of a chunk that is compressed
	rates   map[wire.ID]float64 // of the links of recipients that take compressed chunks; 0: not known yet
	trials  map[trialKey]*trial
	running int       // Deflates under way
	seconds float64   // what compressing took, the past counting for less and less,
	bytes   float64   // and for how many bytes
	ended   time.Time // the last one
}

// trialKey says which data is taken to be alike: that of one file or, of files of one chunk, of those with the same extension.
type trialKey struct {
	file      uint32
	extension string
	one       bool
}

// trial is what trying has shown.
type trial struct {
	left    float64 // share of the bytes that compressing leaves; 1: all; 0: unknown
	trying  bool
	rest    int // chunks that go untried
	lastGap int // how many went untried before the last try; doubles while it does not pay
}

// cost is how many seconds compressing a byte takes; 0: unknown.
func (c *compression) cost() float64 {
	if c.bytes == 0 {
		return 0
	}
	return c.seconds / c.bytes
}

// pays reports whether compressing such data pays on a link with that rate, in bytes per second.
func (c *compression) pays(t *trial, rate float64) bool {
	return rate > 0 && t.left > 0 && t.left <= mostLeft && (1-t.left)/rate > margin*c.cost()
}

// due reports whether the next chunk of such data should be tried. It counts the chunks.
func (t *trial) due() bool {
	if t.trying {
		return false
	}
	if t.rest > 0 {
		t.rest--
		return false
	}
	return true
}

// measured takes what an attempt has shown: length is 0 where too little would have been saved. What is compressed at the same time
// shares the processor, so only the time since the last outcome counts.
func (c *compression) measured(t *trial, raw, length int, begun, ended time.Time) {
	if begun.Before(c.ended) {
		begun = c.ended
	}
	c.seconds = c.seconds/2 + max(0, ended.Sub(begun).Seconds())
	c.bytes = c.bytes/2 + float64(raw)
	if ended.After(c.ended) {
		c.ended = ended
	}
	t.trying, t.left = false, 1
	if length > 0 {
		t.left = float64(length) / float64(raw)
	}
}

// rests has more chunks go untried each time that a try has not paid.
func (t *trial) rests(paid bool) {
	if paid {
		t.lastGap = 0
	} else {
		t.lastGap = min(max(1, 2*t.lastGap), mostRest)
	}
	t.rest = t.lastGap
}

// linked notes that there is a link to the recipient, or none any more, and how fast it is.
func (c *compression) linked(peer wire.ID, inflates bool, rate float64) {
	if c.off || !inflates {
		delete(c.rates, peer)
		return
	}
	if c.rates == nil {
		c.rates = map[wire.ID]float64{}
	}
	c.rates[peer] = rate
}

// sent notes how fast the recipient's link is.
func (c *compression) sent(peer wire.ID, rate float64) {
	if _, inflates := c.rates[peer]; inflates {
		c.rates[peer] = rate
	}
}

// pays reports whether compressing such data pays for any recipient.
func (o *Outgoing) pays(t *trial) bool {
	return slices.ContainsFunc(o.peers, func(r *recipient) bool { return o.flowing(r) && o.compression.pays(t, o.compression.rates[r.id]) })
}

func (o *Outgoing) trial(file uint32) *trial {
	key := trialKey{file: file}
	if o.manifest.Chunks(file) == 1 {
		key = trialKey{extension: strings.ToLower(path.Ext(o.manifest.Files[file].Path)), one: true}
	}
	c := &o.compression
	if c.trials == nil {
		c.trials = map[trialKey]*trial{}
	}
	t := c.trials[key]
	if t == nil {
		t = &trial{}
		c.trials[key] = t
	}
	return t
}

// content is what of a chunk in the cache is to be sent to the recipient: the chunk, or its compressed form. nil: that is still to be
// made, and fetch sees to it.
func (o *Outgoing) content(r *recipient, ref chunk.Ref, entry *cached) (data *bulk.Buffer, compressed bool) {
	if entry == nil || entry.buffer == nil {
		return nil, false
	}
	rate := o.compression.rates[r.id]
	if have := r.have[ref.File]; have != nil && have.Has(ref.Index) || rate == 0 || entry.dense || len(entry.buffer.B) < o.compression.least {
		return entry.buffer, false
	}
	t := o.trial(ref.File)
	if o.compression.pays(t, rate) {
		return entry.packed, true
	}
	if !entry.seen && !o.pays(t) && t.due() && o.compression.running < maxDeflating {
		t.trying = true
		o.deflate(ref, entry, len(entry.buffer.B) > 2*sampleLength)
	}
	entry.seen = true
	return entry.buffer, false
}

// fetch has read or compressed what content lacks.
func (o *Outgoing) fetch(ref chunk.Ref, entry *cached) {
	if entry == nil || entry.buffer == nil {
		o.read(ref, true)
	} else if !entry.deflating && o.compression.running < maxDeflating {
		o.deflate(ref, entry, false)
	} // else the end of what is under way has us look again
}

// deflate has a chunk compressed, once for all recipients, or tries a sample of it.
func (o *Outgoing) deflate(ref chunk.Ref, entry *cached, sample bool) {
	data := entry.buffer.B
	if sample {
		at := (len(data) - sampleLength) / 2
		data = data[at : at+sampleLength]
	} else {
		entry.deflating = true
	}
	o.compression.running++
	o.do(Deflate{Chunk: ref, ID: entry.id, Buffer: entry.buffer.Retain(), Data: data, Most: int(float64(len(data)) * mostLeft)})
}

func (o *Outgoing) deflated(e Deflated) {
	c := &o.compression
	c.running--
	if e.Err != nil { // it has never been seen; then everything travels as it is
		c.off, c.rates = true, nil
		e.Buffer.Release()
		return
	}
	length := 0
	if e.Buffer != nil {
		length = len(e.Buffer.B)
	}
	t := o.trial(e.Chunk.File)
	c.measured(t, e.Raw, length, e.Begun, e.Ended)
	t.rests(o.pays(t))
	entry := o.cache[e.Chunk]
	if entry == nil || entry.id != e.ID || entry.buffer == nil || entry.packed != nil || e.Raw != len(entry.buffer.B) { // evicted meanwhile, perhaps read again, or a sample
		e.Buffer.Release()
		return
	}
	entry.deflating, entry.dense, entry.packed = false, e.Buffer == nil, e.Buffer
	entry.length += length
	o.cached += length
}
