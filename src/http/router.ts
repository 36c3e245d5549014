import { Failure } from '../errors.js';
import type { Exchange } from './exchange.js';
import type { Reply } from './reply.js';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'ALL';

/** The names after a colon in a path, such as `token` in `/stream/live/:token`. */
export type Params<Path extends string> = {
  readonly [Name in ParamNames<Path>]: string;
};

type ParamNames<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? Name | ParamNames<Rest>
  : Path extends `${string}:${infer Name}`
    ? Name
    : never;

export type Handler<Path extends string> = (
  exchange: Exchange,
  params: Params<Path>,
) => Reply | Promise<Reply>;

export interface Route {
  readonly method: Method;
  /** The pattern: for logs, where a path may hold a token. */
  readonly path: string;
  readonly handle: Handler<string>;
  /** HEAD finds the route of a GET that is no stream. */
  readonly isStream: boolean;
}

export interface Found {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

export function route<Path extends string>(
  method: Method,
  path: Path,
  handle: Handler<Path>,
): Route {
  // Safe: `find` gives a handler exactly the params its path names.
  return { method, path, handle: handle as Handler<string>, isStream: false };
}

/** A GET without HEAD: a stream has no length, and opening it may change something. */
export function streamRoute<Path extends string>(path: Path, handle: Handler<Path>): Route {
  return { ...route('GET', path, handle), isStream: true };
}

/** The routes of one path. */
interface Place {
  readonly path: string;
  readonly segments: readonly string[];
  readonly byMethod: Map<string, Route>;
}

/**
 * Method and path to handler. Paths without params are looked up; the few with params are compared
 * segment by segment, in the order given. A trailing slash is part of the path.
 */
export class Router {
  readonly #fixed = new Map<string, Place>();
  readonly #patterns: Place[] = [];

  /** Throws for a route that is there twice. */
  constructor(routes: readonly Route[]) {
    for (const one of routes) {
      const { byMethod } = this.#placeFor(one.path);
      if (byMethod.has(one.method)) {
        throw new Error(`Cannot build router: ${one.method} ${one.path} is there twice`);
      }
      byMethod.set(one.method, one);
    }
  }

  /**
   * Throws `not_found`, `method_not_allowed` with `Allow`, or `invalid_request` for a param that is
   * not percent-encoded UTF-8. HEAD finds the route of GET, unless that is a stream.
   */
  find(method: string, path: string): Found {
    const { place, params } = this.#at(path);
    const wanted = method === 'HEAD' ? 'GET' : method;
    const methods = allowed(place);
    const found = place.byMethod.get(wanted) ?? place.byMethod.get('ALL');
    if (found !== undefined && methods.includes(method)) return { route: found, params };
    const allow = methods.join(', ');
    throw new Failure('method_not_allowed', `Cannot ${known(method)} here: allowed is ${allow}`, {
      headers: { allow },
    });
  }

  /** What OPTIONS answers as `Allow`. Throws `not_found`. */
  methodsAt(path: string): readonly string[] {
    return allowed(this.#at(path).place);
  }

  #placeFor(path: string): Place {
    const isFixed = !path.includes(':');
    const known = isFixed
      ? this.#fixed.get(path)
      : this.#patterns.find((place) => place.path === path);
    if (known !== undefined) return known;
    const place = { path, segments: path.split('/'), byMethod: new Map<string, Route>() };
    if (isFixed) this.#fixed.set(path, place);
    else this.#patterns.push(place);
    return place;
  }

  #at(path: string): { place: Place; params: Record<string, string> } {
    const fixed = this.#fixed.get(path);
    if (fixed !== undefined) return { place: fixed, params: {} };
    const segments = path.split('/');
    for (const place of this.#patterns) {
      const params = match(place.segments, segments);
      if (params !== undefined) return { place, params };
    }
    throw new Failure('not_found', 'Cannot find this: there is no such path');
  }
}

function match(
  pattern: readonly string[],
  segments: readonly string[],
): Record<string, string> | undefined {
  if (pattern.length !== segments.length) return undefined;
  const params: Record<string, string> = {};
  for (const [index, part] of pattern.entries()) {
    const segment = segments[index] ?? '';
    if (part.startsWith(':') && segment !== '') params[part.slice(1)] = segment;
    else if (part !== segment) return undefined;
  }
  // Decoded last: a percent-encoded slash stays in its segment.
  for (const [name, text] of Object.entries(params)) params[name] = decoded(text);
  return params;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new Failure('invalid_request', 'Cannot read path: it is not percent-encoded UTF-8', {
      cause,
    });
  }
}

function allowed({ byMethod }: Place): string[] {
  if (byMethod.has('ALL')) return ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
  const hasHead = byMethod.get('GET')?.isStream === false;
  return [...byMethod.keys(), ...(hasHead ? ['HEAD'] : []), 'OPTIONS'];
}

/** A method is input: an odd one is not repeated. */
function known(method: string): string {
  return /^[A-Z]{1,10}$/.test(method) ? method : 'do that';
}
