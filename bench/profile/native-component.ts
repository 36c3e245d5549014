/**
 * Maps symbols to components of the Node binary, which includes OpenSSL, nghttp2, libuv and V8. The
 * first pattern that matches a symbol decides.
 */
const componentPatterns: readonly (readonly [RegExp, string])[] = [
  [
    /TickSample|sampler|SafeStackFrame|CpuProfil|ProfilerListener/,
    "V8's CPU profiler, outside its thread",
  ],
  [/^Builtins_/, 'V8: built-in functions'],
  [
    /^v8::.*(Scaveng|Mark|Sweep|Evacuat|::Heap|Ephemeron|GlobalHandles|Remembered|SlotSet|Page|GC)/,
    'V8: garbage collection',
  ],
  [
    /^v8::.*([cC]ompil|baseline|maglev|interpreter|[pP]arse|Scanner|Assembler|Turbo|Bytecode)/,
    'V8: compiling',
  ],
  [/^(v8::|cppgc::|heap::)/, 'V8: other runtime code'],
  [/^node::/, "Node's C++"],
  [/^(nghttp2_|hd_|session_|inflight_|huff)/, 'nghttp2: HTTP/2 frames and headers'],
  [/^uv_/, 'libuv'],
  [/^(std::|operator |icu_|simdutf|llhttp_)/, "Node's C++"],
];

/** Returns the component to which machine code belongs. `file` is the binary that contains `symbol`. */
export function getNativeComponent(symbol: string, file: string): string {
  if (file.startsWith('[kernel')) return 'kernel, from `perf` samples';
  if (file.endsWith('.node')) return getAddonName(file);
  if (/malloc|calloc|free|^_int_|unlink_chunk/.test(symbol)) return 'malloc and free';
  if (/mem(cpy|move|set|cmp)/.test(symbol)) return 'memory copied or cleared';
  if (/\.so/.test(file)) return 'other system libraries';
  // perf has no symbols for code that V8 generates at run time.
  if (symbol === '[unknown]') return 'JavaScript, compiled';
  const known = componentPatterns.find(([pattern]) => pattern.test(symbol))?.[1];
  // OpenSSL is almost the only other C code without a namespace in Node.
  return known ?? 'OpenSSL: TLS and other cryptography';
}

function getAddonName(file: string): string {
  const [scope = '', name = ''] = (file.split('/node_modules/').at(-1) ?? '').split('/');
  const packageName = scope.startsWith('@') ? `${scope}/${name}` : scope;
  return packageName === '@photostructure/sqlite'
    ? `SQLite (${packageName})`
    : `addon ${packageName}`;
}
