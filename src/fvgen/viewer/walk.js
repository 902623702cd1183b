"use strict";
// A walk through 3D Gaussians: SPZ (y up) decoded here, sorted by a worker, drawn as quads by WebGL 2.

const SHADER = `#version 300 es
precision highp float; precision highp int; precision highp sampler2D;
uniform sampler2D shapes, colours, harmonics;
uniform int row, coefficients, harmonicsRow;
uniform mat3 turn;  // from the world to the camera: x right, y down, z ahead
uniform vec3 eye;
uniform vec2 focal, middle, size;
layout(location = 0) in vec2 corner;
layout(location = 1) in uint number;
out vec2 place;
out vec4 colour;
vec3 sh(int i, int k) {
  int n = i % harmonicsRow * coefficients + k;
  return (texelFetch(harmonics, ivec2(n, i / harmonicsRow), 0).rgb * 255.0 - 128.0) / 128.0;
}
vec3 seen(int i, vec3 dc, vec3 d) {
  vec3 c = 0.5 + 0.28209479177387814 * dc;
  if (coefficients < 3) return c;
  float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
  c += 0.4886025119029199 * (-y * sh(i, 0) + z * sh(i, 1) - x * sh(i, 2));
  if (coefficients < 8) return c;
  c += 1.0925484305920792 * (x * y * sh(i, 3) - y * z * sh(i, 4) - x * z * sh(i, 6))
    + 0.31539156525252005 * (2.0 * zz - xx - yy) * sh(i, 5) + 0.5462742152960396 * (xx - yy) * sh(i, 7);
  if (coefficients < 15) return c;
  return c - 0.5900435899266435 * (y * (3.0 * xx - yy) * sh(i, 8) + x * (xx - 3.0 * yy) * sh(i, 14))
    + 2.890611442640554 * x * y * z * sh(i, 9)
    - 0.4570457994644658 * (4.0 * zz - xx - yy) * (y * sh(i, 10) + x * sh(i, 12))
    + 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy) * sh(i, 11)
    + 1.445305721320277 * z * (xx - yy) * sh(i, 13);
}
void main() {
  int i = int(number);
  ivec2 cell = ivec2(i % row * 3, i / row);
  vec4 a = texelFetch(shapes, cell, 0), b = texelFetch(shapes, cell + ivec2(1, 0), 0);
  float last = texelFetch(shapes, cell + ivec2(2, 0), 0).x;
  vec4 stored = texelFetch(colours, ivec2(i % row, i / row), 0);
  vec3 p = turn * (a.xyz - eye);
  gl_Position = vec4(0, 0, 2, 1);  // outside
  if (p.z < 0.01 || stored.a * 255.0 <= 1.0) return;
  vec2 straight = p.xy / p.z, edge = 0.65 * size / focal;
  vec2 at = clamp(straight, -edge, edge);
  mat3 covariance = turn * mat3(a.w, b.x, b.y, b.x, b.z, b.w, b.y, b.w, last) * transpose(turn);
  vec3 across = vec3(1, 0, -at.x) * focal.x / p.z, down = vec3(0, 1, -at.y) * focal.y / p.z;
  float xx = dot(across, covariance * across) + 0.3, yy = dot(down, covariance * down) + 0.3;
  float xy = dot(across, covariance * down), mean = 0.5 * (xx + yy), off = length(vec2(0.5 * (xx - yy), xy));
  vec2 axis = abs(xy) < 1e-6 ? (xx >= yy ? vec2(1, 0) : vec2(0, 1)) : normalize(vec2(xy, mean + off - xx));
  float reach = sqrt(2.0 * log(255.0 * stored.a));
  vec2 long_ = reach * sqrt(mean + off) * axis, short_ = reach * sqrt(max(mean - off, 0.1)) * vec2(axis.y, -axis.x);
  vec2 pixel = straight * focal + middle + corner.x * long_ + corner.y * short_;
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0, 1);
  place = corner * reach;
  colour = vec4(max(seen(i, (stored.rgb - 0.5) / 0.15, normalize(a.xyz - eye)), 0.0), stored.a);
}`;
const PAINT = `#version 300 es
precision highp float;
in vec2 place;
in vec4 colour;
out vec4 painted;
void main() {
  float alpha = min(0.999, colour.a * exp(-0.5 * dot(place, place)));
  if (alpha < 1.0 / 255.0) discard;
  painted = vec4(colour.rgb * alpha, alpha);
}`;

// From far to near along a direction, in 65536 steps.
function sorter() {
  let places, depths, order;
  onmessage = ({data}) => {
    if (data.places) {
      places = data.places; depths = new Float32Array(places.length / 3);
      return;
    }
    const [x, y, z] = data.ahead, n = depths.length, counts = new Uint32Array(65537);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < n; i++) {
      const d = depths[i] = -(x * places[3 * i] + y * places[3 * i + 1] + z * places[3 * i + 2]);
      if (d < low) low = d;
      if (d > high) high = d;
    }
    const scale = 65535 / Math.max(high - low, 1e-9);
    for (let i = 0; i < n; i++) counts[((depths[i] - low) * scale | 0) + 1]++;
    for (let k = 0; k < 65536; k++) counts[k + 1] += counts[k];
    order = new Uint32Array(n);
    for (let i = 0; i < n; i++) order[counts[(depths[i] - low) * scale | 0]++] = i;
    postMessage(order, [order.buffer]);
  };
}

// SPZ version 3 as places, covariances, colours and harmonics.
async function decoded(text) {
  const zipped = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer()), view = new DataView(data.buffer);
  const n = view.getUint32(8, true), coefficients = (data[12] + 1) ** 2 - 1, unit = 2 ** -data[13];
  const places = new Float32Array(3 * n), shapes = new Float32Array(6 * n), colours = new Uint8Array(4 * n);
  const alphas = 16 + 9 * n, rgb = alphas + n, scales = rgb + 3 * n, turns = scales + 3 * n;
  const q = [0, 0, 0, 0], m = new Float64Array(9);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < 3; k++) {
      const at = 16 + 9 * i + 3 * k;
      places[3 * i + k] = (data[at] | data[at + 1] << 8 | data[at + 2] << 24 >> 8) * unit;
      colours[4 * i + k] = data[rgb + 3 * i + k];
    }
    colours[4 * i + 3] = data[alphas + i];
    let word = view.getUint32(turns + 4 * i, true), left = 1;
    const largest = word >>> 30;
    for (let k = 3; k >= 0; k--) if (k !== largest) {
      q[k] = (word & 511) / 511 * Math.SQRT1_2 * (word & 512 ? -1 : 1);
      left -= q[k] * q[k]; word >>>= 10;
    }
    q[largest] = Math.sqrt(Math.max(left, 0));
    const [x, y, z, w] = q, s = [0, 1, 2].map(k => Math.exp(data[scales + 3 * i + k] / 16 - 10));
    m[0] = (1 - 2 * (y * y + z * z)) * s[0]; m[1] = 2 * (x * y - w * z) * s[1]; m[2] = 2 * (x * z + w * y) * s[2];
    m[3] = 2 * (x * y + w * z) * s[0]; m[4] = (1 - 2 * (x * x + z * z)) * s[1]; m[5] = 2 * (y * z - w * x) * s[2];
    m[6] = 2 * (x * z - w * y) * s[0]; m[7] = 2 * (y * z + w * x) * s[1]; m[8] = (1 - 2 * (x * x + y * y)) * s[2];
    for (let r = 0, at = 6 * i; r < 3; r++) for (let c = r; c < 3; c++)
      shapes[at++] = m[3 * r] * m[3 * c] + m[3 * r + 1] * m[3 * c + 1] + m[3 * r + 2] * m[3 * c + 2];
  }
  return {n, places, shapes, colours, coefficients, harmonics: data.subarray(turns + 4 * n)};
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const sum = (a, b, t = 1) => a.map((v, k) => v + t * b[k]);
const unit = a => { const l = Math.hypot(...a) || 1; return a.map(v => v / l); };
// About an axis of length 1 (Rodrigues).
const turned = (v, axis, angle) => {
  const c = Math.cos(angle), s = Math.sin(angle), side = cross(axis, v), along = dot(axis, v) * (1 - c);
  return v.map((x, k) => x * c + side[k] * s + axis[k] * along);
};

async function walk(canvas, play, full, note, text, path) {
  const gl = canvas.getContext("webgl2", {antialias: false, alpha: false});
  if (!gl) { note.textContent = "This browser has no WebGL 2, which the walk needs."; return; }
  const scene = await decoded(text);

  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, SHADER], [gl.FRAGMENT_SHADER, PAINT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const uniform = name => gl.getUniformLocation(program, name);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  function texture(slot, name, width, channels, format, store, type, source) {
    const height = Math.max(1, Math.ceil(source.length / (width * channels)));
    const padded = new source.constructor(width * height * channels);
    padded.set(source);
    gl.activeTexture(gl.TEXTURE0 + slot);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const p of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, p, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, store, width, height, 0, format, type, padded);
    gl.uniform1i(uniform(name), slot);
  }
  const {n, places, shapes, colours, coefficients} = scene, widest = Math.min(8192, gl.getParameter(gl.MAX_TEXTURE_SIZE));
  const row = Math.floor(widest / 3), packed = new Float32Array(12 * n);
  for (let i = 0; i < n; i++) {
    packed.set(places.subarray(3 * i, 3 * i + 3), 12 * i);
    packed.set(shapes.subarray(6 * i, 6 * i + 6), 12 * i + 3);
  }
  const harmonicsRow = coefficients ? Math.floor(widest / coefficients) : 1;
  const wide = Math.max(1, harmonicsRow * coefficients);
  texture(0, "shapes", 3 * row, 4, gl.RGBA, gl.RGBA32F, gl.FLOAT, packed);
  texture(1, "colours", row, 4, gl.RGBA, gl.RGBA8, gl.UNSIGNED_BYTE, colours);
  texture(2, "harmonics", wide, 3, gl.RGB, gl.RGB8, gl.UNSIGNED_BYTE, scene.harmonics);
  gl.uniform1i(uniform("row"), row);
  gl.uniform1i(uniform("coefficients"), coefficients);
  gl.uniform1i(uniform("harmonicsRow"), harmonicsRow);

  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  const numbers = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, numbers);
  gl.enableVertexAttribArray(1);
  gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(1, 1);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  // The camera: where it is, and its axes right, down and ahead in the world.
  let eye, axes, lens, shown = path.first, drawn = 0, sorted = null, sorting = false, stale = true;
  // Of each frame: the place, ahead and down, and as shares of the frame's sides the focal lengths and the middle.
  const up = unit(path.frames.reduce((a, f) => sum(a, f.slice(6, 9), -1), [0, 0, 0]));
  function stand(time) {
    const k = Math.min(Math.floor(time), path.frames.length - 1), next = Math.min(k + 1, path.frames.length - 1);
    const f = path.frames[k].map((v, j) => v + (time - k) * (path.frames[next][j] - v));
    const ahead = unit(f.slice(3, 6)), right = unit(cross(f.slice(6, 9), ahead));
    eye = f.slice(0, 3); lens = f.slice(9);
    axes = [right, cross(ahead, right), ahead];
    shown = time; stale = true;
  }
  const ways = [];
  for (let i = 0; i < n; i += Math.ceil(n / 2000)) ways.push(i);
  stand(path.first);
  const distances = ways.map(i => Math.hypot(...sum(places.subarray(3 * i, 3 * i + 3), eye, -1))).sort((a, b) => a - b);
  const pace = (distances[distances.length >> 1] || 1) / 3;  // a second

  const worker = new Worker(URL.createObjectURL(new Blob([`(${sorter})()`])));
  worker.postMessage({places: places.slice()});
  worker.onmessage = ({data}) => {
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    drawn = data.length; sorting = false; stale = true;
    canvas.dataset.ready = "true";
  };
  function sort() {
    if (sorting || (sorted && dot(sorted, axes[2]) > 0.99999)) return;
    sorted = [...axes[2]]; sorting = true;
    worker.postMessage({ahead: sorted});
  }
  function draw() {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map(side => Math.max(1, Math.round(side * ratio)));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    // Focal lengths and the middle are shares of the frame; the canvas may have another shape in full screen.
    const scale = Math.max(width, height * path.aspect), frame = [scale, scale / path.aspect];
    gl.viewport(0, 0, width, height);
    gl.uniformMatrix3fv(uniform("turn"), true, axes.flat());
    gl.uniform3fv(uniform("eye"), eye);
    gl.uniform2f(uniform("focal"), lens[0] * frame[0], lens[1] * frame[1]);
    gl.uniform2f(uniform("middle"), width / 2 + (lens[2] - 0.5) * frame[0], height / 2 + (lens[3] - 0.5) * frame[1]);
    gl.uniform2f(uniform("size"), width, height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, drawn);
  }

  let playing = false, before = null;
  const held = new Set();
  const MOVES = {KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyE: [0, -1, 0], KeyQ: [0, 1, 0],
    ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0]};
  function stop() { playing = false; play.textContent = "Fly the path"; }
  play.onclick = () => {
    if (playing) { stop(); return; }
    playing = true; play.textContent = "Stop";
    if (shown >= path.frames.length - 1) shown = 0;
  };
  function step(now) {
    const seconds = Math.min(0.1, (now - (before ?? now)) / 1000);
    before = now;
    if (playing) {
      stand(Math.min(path.frames.length - 1, shown + seconds * path.rate));
      if (shown >= path.frames.length - 1) stop();
    }
    for (const key of held) if (MOVES[key]) {
      const move = MOVES[key], fast = held.has("ShiftLeft") || held.has("ShiftRight") ? 4 : 1;
      for (let k = 0; k < 3; k++) eye = sum(eye, axes[k], move[k] * pace * fast * seconds);
      stale = true;
    }
    sort();
    if (stale) { draw(); stale = false; }
    requestAnimationFrame(step);
  }
  canvas.onkeydown = e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (MOVES[e.code]) { stop(); e.preventDefault(); }
    held.add(e.code);
  };
  canvas.onkeyup = e => held.delete(e.code);
  canvas.onblur = () => held.clear();
  canvas.onpointerdown = e => { canvas.setPointerCapture(e.pointerId); canvas.focus(); stop(); };
  canvas.onpointermove = e => {
    if (!e.buttons) return;
    const angle = 1 / (lens[1] * canvas.clientHeight);  // the picture follows the pointer
    axes = axes.map(axis => turned(axis, up, e.movementX * angle));
    const ahead = turned(axes[2], axes[0], e.movementY * angle);
    if (Math.abs(dot(ahead, up)) < 0.98) axes = [axes[0], cross(ahead, axes[0]), ahead];
    stale = true;
  };
  full.onclick = () => canvas.requestFullscreen();
  new ResizeObserver(() => { stale = true; }).observe(canvas);
  requestAnimationFrame(step);
}
