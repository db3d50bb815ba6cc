// SPDX-License-Identifier: Apache-2.0
// The tree of places, its times, and where each of them lies. Nothing here knows the page.

const KINDS = ["unknown", "python", "native", "kernel", "waiting", "anonymous"];
const MODES = { wall: [0, 1, 2], cpu: [0], blocked: [2] };    // states whose time counts

class Tree {
  // data: what export-html.c writes. Place 0 is above all stacks.
  constructor(data) {
    const n = data.parents.length;
    this.n = n;
    this.frame = Int32Array.from(data.frame);
    this.parent = new Int32Array(n);
    this.depth = new Int32Array(n);
    for (let i = 1; i < n; i++) {
      this.parent[i] = i - data.parents[i];
      this.depth[i] = this.depth[this.parent[i]] + 1;
    }
    this.segments = data.segments;
    this.state = [0, 1, 2].map(() => new Float64Array(n));    // in µs, with all below
    this.own = [0, 1, 2].map(() => new Float64Array(n));
    this.count = new Float64Array(n);
    this.total = new Float64Array(n);                         // of the chosen mode
    this.start = new Float64Array(n);
    this.linkChildren();
    this.choose(-1, "wall");
    this.sortChildren();
    this.choose(-1, "wall");
  }

  // The children of place i are children[first[i]] to children[first[i + 1] - 1].
  linkChildren() {
    this.first = new Int32Array(this.n + 2);
    for (let i = 1; i < this.n; i++)
      this.first[this.parent[i] + 2]++;
    for (let i = 2; i < this.n + 2; i++)
      this.first[i] += this.first[i - 1];
    this.children = new Int32Array(this.n);
    for (let i = 1; i < this.n; i++)
      this.children[this.first[this.parent[i] + 1]++] = i;
  }

  // The longest first, by wall time: a place stays where it is when the mode changes.
  sortChildren() {
    for (let i = 0; i < this.n; i++)
      if (this.first[i + 1] - this.first[i] > 1)
        this.children.subarray(this.first[i], this.first[i + 1])
          .sort((a, b) => this.total[b] - this.total[a]);
  }

  // Sums up the times of a segment, or of all (-1), and lays the places out.
  choose(segment, mode) {
    const all = [...this.state, ...this.own, this.count, this.total];
    for (const array of all)
      array.fill(0);
    for (const s of segment < 0 ? this.segments : [this.segments[segment]])
      for (let i = 0; i < s.times.length; i += 5) {
        const place = s.times[i];
        for (let k = 0; k < 3; k++) {
          this.own[k][place] += s.times[i + 1 + k];
          this.state[k][place] += s.times[i + 1 + k];
        }
        this.count[place] += s.times[i + 4];
      }
    for (let i = this.n - 1; i > 0; i--) {
      const parent = this.parent[i];
      for (let k = 0; k < 3; k++)
        this.state[k][parent] += this.state[k][i];
      this.count[parent] += this.count[i];
    }
    for (const k of MODES[mode])
      for (let i = 0; i < this.n; i++)
        this.total[i] += this.state[k][i];
    this.mode = mode;
    this.place();
  }

  place() {
    const { first, children, start, total } = this;
    // A parent comes before its children, whatever the order of siblings.
    for (let i = 0; i < this.n; i++) {
      let at = start[i];
      for (let c = first[i]; c < first[i + 1]; c++) {
        start[children[c]] = at;
        at += total[children[c]];
      }
    }
  }

  self(place) {
    return MODES[this.mode].reduce((sum, k) => sum + this.own[k][place], 0);
  }

  *childrenOf(place) {
    for (let c = this.first[place]; c < this.first[place + 1]; c++)
      yield this.children[c];
  }

  // From the outermost frame to the place itself.
  path(place) {
    const path = [];
    for (; place > 0; place = this.parent[place])
      path.unshift(place);
    return path;
  }

  isWithin(place, root) {
    while (place > root)
      place = this.parent[place];
    return place === root;
  }

  // The time below root under frames that match, each counted once.
  matchedTime(root, matches) {
    let sum = 0;
    const todo = [root];
    while (todo.length) {
      const place = todo.pop();
      if (place > 0 && matches[this.frame[place]])
        sum += this.total[place];
      else
        for (let c = this.first[place]; c < this.first[place + 1]; c++)
          if (this.total[this.children[c]] > 0)
            todo.push(this.children[c]);
    }
    return sum;
  }
}

function timeText(us) {
  if (us < 1e3)
    return `${Math.round(us)} µs`;
  if (us < 1e6)
    return `${+(us / 1e3).toPrecision(3)} ms`;
  if (us < 120e6)
    return `${(us / 1e6).toFixed(2)} s`;
  return `${Math.floor(us / 60e6)} min ${Math.round(us % 60e6 / 1e6)} s`;
}

function shareText(part, whole) {
  const percent = whole > 0 ? 100 * part / whole : 0;
  return `${percent > 0 && percent < 0.1 ? "< 0.1" : percent.toFixed(1)} %`;
}
