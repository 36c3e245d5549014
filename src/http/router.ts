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

export interface RouteMatch {
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
interface PathRoutes {
  readonly path: string;
  readonly segments: readonly string[];
  readonly byMethod: Map<string, Route>;
}

/**
 * Method and path to handler. Paths without params are looked up; the few with params are compared
 * segment by segment, in the order given. A trailing slash is part of the path.
 */
export class Router {
  readonly #staticPaths = new Map<string, PathRoutes>();
  readonly #patterns: PathRoutes[] = [];

  /** Throws for a route that is there twice. */
  constructor(routes: readonly Route[]) {
    for (const one of routes) {
      const { byMethod } = this.#pathRoutesFor(one.path);
      if (byMethod.has(one.method)) {
        throw new Error(`Cannot build router: ${one.method} ${one.path} is defined twice`);
      }
      byMethod.set(one.method, one);
    }
  }

  /**
   * Throws `not_found`, `method_not_allowed` with `Allow`, or `invalid_request` for a param that is
   * not percent-encoded UTF-8. HEAD finds the route of GET, unless that is a stream.
   */
  find(method: string, path: string): RouteMatch {
    const { pathRoutes, params } = this.#matchPath(path);
    const wanted = method === 'HEAD' ? 'GET' : method;
    const methods = allowedMethods(pathRoutes);
    const handlerRoute = pathRoutes.byMethod.get(wanted) ?? pathRoutes.byMethod.get('ALL');
    if (handlerRoute !== undefined && methods.includes(method))
      return { route: handlerRoute, params };
    const allow = methods.join(', ');
    throw new Failure(
      'method_not_allowed',
      `Cannot ${printableMethod(method)} here: allowed methods are ${allow}`,
      {
        headers: { allow },
      },
    );
  }

  /** What OPTIONS answers as `Allow`. Throws `not_found`. */
  methodsAt(path: string): readonly string[] {
    return allowedMethods(this.#matchPath(path).pathRoutes);
  }

  #pathRoutesFor(path: string): PathRoutes {
    const isFixed = !path.includes(':');
    const existing = isFixed
      ? this.#staticPaths.get(path)
      : this.#patterns.find((pathRoutes) => pathRoutes.path === path);
    if (existing !== undefined) return existing;
    const pathRoutes = { path, segments: path.split('/'), byMethod: new Map<string, Route>() };
    if (isFixed) this.#staticPaths.set(path, pathRoutes);
    else this.#patterns.push(pathRoutes);
    return pathRoutes;
  }

  #matchPath(path: string): { pathRoutes: PathRoutes; params: Record<string, string> } {
    const fixed = this.#staticPaths.get(path);
    if (fixed !== undefined) return { pathRoutes: fixed, params: {} };
    const segments = path.split('/');
    for (const pathRoutes of this.#patterns) {
      const params = match(pathRoutes.segments, segments);
      if (params !== undefined) return { pathRoutes, params };
    }
    throw new Failure('not_found', 'Cannot find resource: no such path');
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
  for (const [name, text] of Object.entries(params)) params[name] = decodeParam(text);
  return params;
}

function decodeParam(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new Failure('invalid_request', 'Cannot read path: it is not percent-encoded UTF-8', {
      cause,
    });
  }
}

function allowedMethods({ byMethod }: PathRoutes): string[] {
  if (byMethod.has('ALL')) return ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
  const hasHead = byMethod.get('GET')?.isStream === false;
  return [...byMethod.keys(), ...(hasHead ? ['HEAD'] : []), 'OPTIONS'];
}

/** A method is input: an odd one is not repeated. */
function printableMethod(method: string): string {
  return /^[A-Z]{1,10}$/.test(method) ? method : 'use this method';
}
