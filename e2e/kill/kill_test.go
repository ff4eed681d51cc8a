//go:build !js

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

const (
	mib = 1 << 20
	// chunkSize is that of file sets below 16 GiB.
	chunkSize = chunk.DefaultSize
	// overhead is what records and lists cost besides chunks, and a thousandth of these; slack what may come again over a link that somebody else's
	// death has cut: chunks that were being written.
	overhead = 32 << 10
	slack    = 2 * chunkSize
)

// programs are built once, without the race detector, which would make each process several times as slow.
type programs struct{ member, server string }

func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	p := programs{filepath.Join(dir, "member"), filepath.Join(dir, "server")}
	for out, pkg := range map[string]string{p.member: ".", p.server: "../../server"} {
		if b, err := exec.Command("go", "build", "-o", out, pkg).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	return p
}

// tally is what all runs together have seen.
type tally struct {
	runs, planned, died, servers, anew, failed, resumed, repeated atomic.Int64
	midway                                                        [2]atomic.Int64 // deaths of senders, and recipients, when some of the bytes had come and not all
}

// TestKillMatrix sends files between processes over loopback, and kills sender, recipients and server at random points: by the bytes on disk and those
// read, at, in the middle of and after the nth write to a journal, at the nth event, around the moment that makes a file durable, and at random
// times. All that are killed start again with what lies on their disk. Every run ends with the sender saying that all is verified on disk, and then
// it is, although the recipients are killed in the same moment.
//
// TALLOW_KILL_SEED repeats a run of the same form, and TALLOW_KILL_LARGE=1 with it one of 4 GiB; TALLOW_KILL_RUNS and TALLOW_KILL_LARGE say how many
// there are of each.
func TestKillMatrix(t *testing.T) {
	p := build(t)
	runs, large, largest := 50, 0, int64(16*mib)
	if os.Getenv("TALLOW_SOAK") == "1" {
		runs, large, largest = 1000, 5, 64*mib
	}
	first := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("TALLOW_KILL_SEED"), 10, 64); err == nil {
		first, runs, large = s, 1, 0
	}
	for name, number := range map[string]*int{"TALLOW_KILL_RUNS": &runs, "TALLOW_KILL_LARGE": &large} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			*number = n
		}
	}
	if large > 0 && os.Getenv("TALLOW_KILL_SEED") != "" {
		runs = 0
	}
	var sum tally
	var next atomic.Uint64
	var working sync.WaitGroup
	for range 16 { // who has died is missed for seconds: they mostly wait
		working.Go(func() {
			for i := next.Add(1) - 1; i < uint64(runs) && !t.Failed(); i = next.Add(1) - 1 {
				play(t, p, newPlan(first+i, largest), &sum)
			}
		})
	}
	working.Wait()
	for i := range uint64(large) {
		plan := newPlan(first+uint64(runs)+i, largest)
		plan.enlarge(4<<30 + 1)
		before := sum.midway[0].Load() + sum.midway[1].Load()
		play(t, p, plan, &sum)
		if sum.midway[0].Load()+sum.midway[1].Load() == before {
			t.Errorf("nobody died in the middle: %v", plan)
		}
	}
	t.Logf("seeds from %d: %d runs, %d of %d kills came before the end, of senders %d and of recipients %d in the middle of a delivery, %d of the server; %d resumed, %d sent anew, %d ended otherwise first; %d bytes were on disk already",
		first, sum.runs.Load(), sum.died.Load(), sum.planned.Load(), sum.midway[0].Load(), sum.midway[1].Load(), sum.servers.Load(), sum.resumed.Load(), sum.anew.Load(), sum.failed.Load(), sum.repeated.Load())
	if runs >= 50 {
		for what, n := range map[string]int64{"senders in the middle": sum.midway[0].Load(), "recipients in the middle": sum.midway[1].Load(), "servers": sum.servers.Load()} {
			if n < int64(runs)/20 {
				t.Errorf("in %d runs only %d %s were killed", runs, n, what)
			}
		}
	}
	// A sender that dies in the moment in which it has sent an offer may not have noted it yet.
	if n := sum.anew.Load(); n > sum.died.Load()/4 {
		t.Errorf("after %d kills a transfer was not there any more", n)
	}
}

// plan is what a run is to be; all of it follows from the seed.
type plan struct {
	seed       uint64
	rand       *rand.Rand
	files      []File
	size       int64
	recipients int
	owner      int // 0 is the sender
	takes      time.Duration
	wants      [3][]uint32 // of the files, by recipients who do not take all
	deaths     [3][]Death  // of the sender and the recipients, one for each life; then they live on
	outages    []time.Duration
	patience   time.Duration
}

func (p *plan) String() string {
	return fmt.Sprintf("TALLOW_KILL_SEED=%d: %d files, %d bytes in about %v to %d; member %d owns the room; they take %v; deaths %+v, outages %v",
		p.seed, len(p.files), p.size, p.takes, p.recipients, p.owner, p.wants, p.deaths, p.outages)
}

func newPlan(seed uint64, largest int64) *plan {
	p := &plan{seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), recipients: 1, patience: 3 * time.Minute}
	if p.rand.IntN(4) == 0 {
		p.recipients = 2
	}
	p.owner = p.rand.IntN(1 + p.recipients)
	size := largest/16 + p.rand.Int64N(largest-largest/16+1)
	switch special := []int64{0, 1, chunkSize - 1, chunkSize, chunkSize + 1}; p.rand.IntN(10) {
	case 0:
		size = special[p.rand.IntN(len(special))]
	case 1, 2, 3:
		size = int64(math.Exp(p.rand.Float64() * math.Log(float64(largest))))
	}
	p.resize(size)
	return p
}

// enlarge makes a plan of a size at which a kill early on is in the middle, whatever else it plans.
func (p *plan) enlarge(size int64) {
	p.resize(size)
	who := p.rand.IntN(1 + p.recipients)
	d := Death{At: "write", N: size/20 + p.rand.Int64N(size/2), How: "in"}
	if who == 0 {
		d.At = "read"
	}
	p.deaths[who] = append([]Death{d}, p.deaths[who]...)
}

// resize makes a plan of a size, and what follows from it.
func (p *plan) resize(size int64) {
	p.files = []File{{"a.bin", size, p.seed}}
	for i := range p.rand.IntN(4) * p.rand.IntN(2) {
		p.files = append(p.files, File{fmt.Sprintf("dir/%d.bin", i), int64(p.rand.IntN(3 * chunkSize)), p.seed + uint64(i) + 1})
	}
	p.size, p.wants, p.deaths, p.outages = 0, [3][]uint32{}, [3][]Death{}, nil
	for _, f := range p.files {
		p.size += f.Size
	}
	for who := 1; who <= p.recipients && len(p.files) > 1; who++ {
		if p.rand.IntN(2) == 0 {
			p.wants[who] = []uint32{0} // a delivery worth killing
			for i := 1; i < len(p.files); i++ {
				if p.rand.IntN(2) == 0 {
					p.wants[who] = append(p.wants[who], uint32(i))
				}
			}
		}
	}
	p.takes = time.Duration(p.rand.Int64N(int64(1500 * time.Millisecond)))
	if p.size > 64*mib+4*3*chunkSize {
		p.takes, p.patience = 40*time.Second, 30*time.Minute
	}
	for range 1 + p.rand.IntN(3) {
		who := p.rand.IntN(p.recipients + 2)
		if who > p.recipients {
			p.outages = append(p.outages, p.moment())
			continue
		}
		p.deaths[who] = append(p.deaths[who], p.death(who, len(p.deaths[who])))
	}
}

// taken is what a recipient accepts.
func (p *plan) taken(who int) []File {
	if p.wants[who] == nil {
		return p.files
	}
	var list []File
	for _, i := range p.wants[who] {
		list = append(list, p.files[i])
	}
	return list
}

// sizeOf is how many bytes a recipient accepts.
func (p *plan) sizeOf(who int) (n int64) {
	for _, f := range p.taken(who) {
		n += f.Size
	}
	return n
}

// moment is a random one from the start to a while after the end.
func (p *plan) moment() time.Duration {
	return time.Duration(p.rand.Float64() * float64(p.takes+time.Second))
}

func (p *plan) death(who, life int) Death {
	d := Death{How: []string{"before", "in", "after"}[p.rand.IntN(3)]}
	switch n := p.rand.IntN(20); {
	case n < 8: // later lives have less to do
		d.At, d.N = "write", int64(p.rand.Float64()*float64(p.size)/float64(life+1))
		if who == 0 {
			d.At = "read"
		}
	case n < 12:
		d.At, d.N = "put", 1+int64(math.Exp(p.rand.Float64()*math.Log(40)))
	case n < 15:
		d.At, d.N = "event", 1+p.rand.Int64N(20)
	case n < 16 && who > 0:
		d.At, d.N = "commit", 1
	default:
		d.At, d.N = "time", p.moment().Milliseconds()
	}
	return d
}

// trial is a plan under way.
type trial struct {
	t    *testing.T
	plan *plan
	p    programs
	sum  *tally
	dir  string
	cfg  []Config
	ends []chan struct{} // closed when the member's last life has ended
	done chan string     // the transfer that the sender says is done

	mu      sync.Mutex
	over    bool
	log     []string
	living  []*exec.Cmd
	claims  []map[string]bool // transfers that a recipient has said are done
	sent    int
	deaths  int
	servers *exec.Cmd
	failure error
}

// play makes a run and checks how it ends.
func play(t *testing.T, p programs, plan *plan, sum *tally) {
	dir, err := os.MkdirTemp("", "tallow-kill-")
	if err != nil {
		t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	members := 1 + plan.recipients
	r := &trial{t: t, plan: plan, p: p, sum: sum, dir: dir, cfg: make([]Config, members), ends: make([]chan struct{}, members), done: make(chan string, 100),
		living: make([]*exec.Cmd, members), claims: make([]map[string]bool, members)}
	ids := make([]wire.ID, members)
	for i := range r.cfg {
		r.ends[i], r.claims[i] = make(chan struct{}), map[string]bool{}
		c := &r.cfg[i]
		c.Name, c.Dir, c.Wants = fmt.Sprintf("member%d", i), filepath.Join(dir, fmt.Sprint(i)), plan.wants[i]
		binary.BigEndian.PutUint64(c.Seed[:], plan.seed)
		c.Seed[8] = byte(i)
		identity, err := seal.NewIdentity(c.Seed)
		if err == nil {
			err = os.Mkdir(c.Dir, 0o700)
		}
		if err != nil {
			t.Error(err)
			return
		}
		ids[i] = identity.ID()
	}
	r.cfg[0].Files, r.cfg[0].To = plan.files, ids[1:]
	if plan.size > 4*chunkSize && plan.takes > 0 {
		r.cfg[0].Rate = int64(float64(plan.size) / plan.takes.Seconds())
	}
	addr := r.startServer("")
	link := seal.NewLink(ids[plan.owner])
	for i := range r.cfg {
		r.cfg[i].Server, r.cfg[i].Link = "ws://"+addr+"/ws", link.Fragment()
		go r.lives(i)
	}
	go r.outages(addr)
	var id string
	timeout := time.NewTimer(plan.patience)
	defer timeout.Stop()
	select {
	case id = <-r.done: // and the recipients are dead
	case <-timeout.C:
		r.fail(errors.New("it hangs"))
	}
	r.end()
	for _, ended := range r.ends {
		<-ended
	}
	if n := sum.runs.Add(1); n%100 == 0 {
		t.Logf("%d runs", n)
	}
	for _, d := range plan.deaths {
		sum.planned.Add(int64(len(d)))
	}
	sum.died.Add(int64(r.deaths))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == nil {
		for i := 1; i < members && r.failure == nil; i++ {
			r.claims[i][id] = true
			for claimed := range r.claims[i] {
				if err := r.whole(i, claimed); err != nil {
					r.failure = fmt.Errorf("recipient %d, transfer %s, said to be done: %w", i, claimed, err)
				}
			}
		}
	}
	if r.failure != nil {
		t.Errorf("%v\n%v\n%s", r.failure, plan, strings.Join(r.log, "\n"))
	}
}

// note adds a line to what a failure shows.
func (r *trial) note(who int, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf("%s %d: %s", time.Now().Format("05.000"), who, fmt.Sprintf(format, args...)))
}

func (r *trial) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == nil {
		r.failure = err
		for _, c := range r.living { // what hangs says where
			if c != nil {
				c.Process.Signal(syscall.SIGQUIT)
			}
		}
	}
}

// end kills everyone, at once.
func (r *trial) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	for _, c := range append(r.living, r.servers) {
		if c != nil && r.failure == nil {
			c.Process.Kill()
		}
	}
	if r.failure != nil {
		time.AfterFunc(time.Second, func() {
			for _, c := range append(r.living, r.servers) {
				if c != nil {
					c.Process.Kill()
				}
			}
		})
	}
}

// ports are those of servers, which may be dead for a moment.
var ports sync.Map

// startServer starts the server, at first on a port of its own below those that the system gives to connections.
func (r *trial) startServer(addr string) string {
	for range 50 {
		at := addr
		if at == "" {
			at = fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
			if _, taken := ports.LoadOrStore(at, true); taken {
				continue
			}
		}
		c := exec.Command(r.p.server, "-addr", at, "-turn=false", "-max-connections-per-ip", "0", "-connection-rate-per-ip", "0")
		out, err := c.StdoutPipe()
		if err != nil {
			r.t.Error(err)
			return ""
		}
		r.mu.Lock()
		if r.over {
			r.mu.Unlock()
			return ""
		}
		if err := c.Start(); err != nil {
			r.mu.Unlock()
			r.t.Error(err)
			return ""
		}
		r.servers = c
		r.mu.Unlock()
		lines := bufio.NewScanner(out)
		if lines.Scan() && strings.Contains(lines.Text(), "listening on") {
			go func() {
				io.Copy(io.Discard, out)
				c.Wait()
			}()
			return at
		}
		c.Wait() // the port is taken, or it was killed
	}
	r.fail(errors.New("no server can be started"))
	r.done <- ""
	return ""
}

func (r *trial) outages(addr string) {
	for _, after := range r.plan.outages {
		time.Sleep(after)
		r.mu.Lock()
		if r.over {
			r.mu.Unlock()
			return
		}
		r.sum.servers.Add(1)
		r.servers.Process.Kill()
		r.mu.Unlock()
		r.note(-1, "the server is killed")
		time.Sleep(after % (500 * time.Millisecond))
		r.startServer(addr)
		r.note(-1, "the server is back")
	}
}

// lives starts a member again and again.
func (r *trial) lives(who int) {
	defer close(r.ends[who])
	had, sent, cut := int64(-1), 0, 0 // a recipient's, when it died last: what was on its disk, and how much it had received
	var received int64
	for life := 0; ; life++ {
		cfg := r.cfg[who]
		if deaths := r.plan.deaths[who]; life < len(deaths) {
			cfg.Death = &deaths[life]
		}
		r.live(who, cfg)
		r.mu.Lock()
		over := r.over
		r.deaths++
		if over {
			r.deaths--
		}
		deaths, sentNow := r.deaths, r.sent
		r.mu.Unlock()
		if who > 0 {
			now := count(filepath.Join(cfg.Dir, Received))
			if had >= 0 && sent == sentNow {
				most := r.plan.sizeOf(who) - had + r.plan.sizeOf(who)/1000 + overhead + slack*int64(deaths-cut)
				if now-received > most {
					r.fail(fmt.Errorf("recipient %d has received %d bytes in a life that began with %d of %d bytes", who, now-received, had, r.plan.sizeOf(who)))
				}
			}
			var err error
			if had, err = r.onDisk(who); err != nil {
				r.fail(err)
			}
			received, sent, cut = now, sentNow, deaths
		}
		if over {
			return
		}
		switch {
		case who > 0 && had > 0 && had < r.plan.sizeOf(who):
			r.sum.midway[1].Add(1)
		case who == 0 && r.begun():
			r.sum.midway[0].Add(1)
		}
		r.note(who, "died, with %d bytes on disk", had)
		time.Sleep(time.Duration(r.plan.seed>>life%300) * time.Millisecond)
	}
}

// begun reports whether a recipient has received any of the files; the sender has not been told yet that all have everything.
func (r *trial) begun() bool {
	for _, c := range r.cfg[1:] {
		if count(filepath.Join(c.Dir, Received)) > overhead {
			return true
		}
	}
	return false
}

// live is one life of a member.
func (r *trial) live(who int, cfg Config) {
	c := exec.Command(r.p.member)
	config, err := json.Marshal(cfg)
	if err != nil {
		r.t.Error(err)
		return
	}
	var complaints bytes.Buffer
	c.Stdin, c.Stderr = bytes.NewReader(config), &complaints
	out, err := c.StdoutPipe()
	if err != nil {
		r.t.Error(err)
		return
	}
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	err = c.Start()
	r.living[who] = c
	r.mu.Unlock()
	if err != nil {
		r.t.Error(err)
		return
	}
	r.note(who, "lives; dies %+v", cfg.Death)
	if cfg.Death != nil && cfg.Death.At == "time" {
		timer := time.AfterFunc(time.Duration(cfg.Death.N)*time.Millisecond, func() { c.Process.Kill() })
		defer timer.Stop()
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			break // it died in the middle of a line
		}
		r.note(who, "%s", lines.Text())
		r.take(who, e)
	}
	c.Wait()
	r.mu.Lock()
	over := r.over
	r.mu.Unlock()
	if s := complaints.String(); s != "" {
		r.note(who, "%s", s)
		if !over {
			r.fail(fmt.Errorf("member %d ended by itself: %.300s", who, s))
			r.done <- ""
		}
	}
}

// take takes what a member says.
func (r *trial) take(who int, e Event) {
	switch {
	case e.Event == "resumed":
		r.sum.resumed.Add(1)
	case e.Event == "sent":
		r.mu.Lock()
		if r.sent++; r.sent > 1 {
			r.sum.anew.Add(1)
		}
		r.mu.Unlock()
	case e.Event == "finished" && !e.Done:
		r.sum.failed.Add(1)
		for _, code := range e.Codes {
			if code != "" && code != fault.PeerGone { // which goes on by itself
				r.fail(fmt.Errorf("member %d: transfer %s ended with %s", who, e.ID, code))
				r.done <- ""
			}
		}
	case e.Event == "finished" && who > 0:
		r.sum.repeated.Add(e.Repeated)
		r.mu.Lock()
		r.claims[who][e.ID] = true
		r.mu.Unlock()
	case e.Event == "finished":
		r.end()
		r.done <- e.ID
	}
}

func count(name string) int64 {
	b, err := os.ReadFile(name)
	if err != nil || len(b) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

// deliveries are those on a recipient's disk, by the transfer.
func (r *trial) deliveries(who int) map[string]string {
	found := map[string]string{}
	for _, name := range []string{transfer.JournalName, transfer.ReceiptName} {
		paths, _ := filepath.Glob(filepath.Join(r.cfg[who].Dir, "disk", "*", name))
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if j, bad := transfer.ParseJournal(b); err == nil && bad == nil {
				found[j.Key.Transfer.String()] = filepath.Dir(path)
			}
		}
	}
	return found
}

// whole reports whether a transfer's files are on a recipient's disk.
func (r *trial) whole(who int, id string) error {
	dir := r.deliveries(who)[id]
	if dir == "" {
		return errors.New("nothing of it is on disk")
	}
	size := r.plan.sizeOf(who)
	if size == 0 {
		return nil
	}
	f, err := os.Open(filepath.Join(dir, room.StoredName))
	if err != nil {
		return err
	}
	defer f.Close()
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, f)
	if err != nil || n != size {
		return fmt.Errorf("%d bytes of %d: %v", n, size, err)
	}
	for _, file := range r.plan.taken(who) {
		if _, err := io.Copy(want, io.NewSectionReader(&source{file, &fate{}}, 0, file.Size)); err != nil {
			return err
		}
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return errors.New("wrong bytes")
	}
	return nil
}

// onDisk is how many bytes a dead recipient has that it must not be sent again: in chunks whose hashes are in its journal.
func (r *trial) onDisk(who int) (int64, error) {
	most := int64(0)
	for _, dir := range r.deliveries(who) {
		b, err := os.ReadFile(filepath.Join(dir, transfer.JournalName))
		if errors.Is(err, os.ErrNotExist) {
			most = r.plan.sizeOf(who)
			continue
		}
		j, bad := transfer.ParseJournal(b)
		if err != nil || bad != nil {
			return 0, errors.Join(err, bad)
		}
		if j.Done() {
			most = r.plan.sizeOf(who)
			continue
		}
		f, err := os.Open(filepath.Join(dir, room.StoredName))
		if err != nil {
			continue // not made yet
		}
		in := transfer.RestoreIncoming(j, time.Now())
		m := in.Manifest()
		var have, at int64
		for i, file := range m.Files {
			if !j.Wanted(uint32(i)) {
				continue
			}
			for index, hash := range in.Announced(uint32(i)) {
				ref := chunk.Ref{File: uint32(i), Index: uint32(index)}
				b := make([]byte, m.Length(ref))
				if _, err := f.ReadAt(b, at+m.Offset(ref)); err == nil && sha256.Sum256(b) == hash {
					have += int64(len(b))
				}
			}
			at += int64(file.Size)
		}
		f.Close()
		most = max(most, have)
	}
	return most, nil
}
