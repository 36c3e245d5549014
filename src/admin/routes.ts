import type { Exchange } from '../http/exchange.js';
import type { Route } from '../http/router.js';
import type { Scope } from '../identity/api-key.js';
import type { ServicePrincipal } from '../identity/bearer.js';
import { type DisconnectRouteParts, disconnectRoute } from './disconnect.js';
import { type StreamsRouteParts, streamsRoute } from './streams-route.js';
import { type TicketRouteParts, ticketsRoute } from './tickets.js';
import { type TopicRouteParts, topicRoutes } from './topics/topic-routes.js';

export interface AdminRouteParts
  extends Omit<TicketRouteParts, 'authenticate'>,
    Omit<DisconnectRouteParts, 'authenticate' | 'eventLog'>,
    Omit<StreamsRouteParts, 'authenticate'>,
    Omit<TopicRouteParts, 'authenticate' | 'eventLog'> {
  readonly eventLog: DisconnectRouteParts['eventLog'];
  /** Authenticates an API key with this scope. Throws failures with status 401 or 403. */
  readonly authenticate: (exchange: Exchange, scope: Scope) => Promise<ServicePrincipal>;
}

/** Creates the routes below `/v1` for backends and operators, without the route for publishing. */
export function adminRoutes({ authenticate, ...parts }: AdminRouteParts): Route[] {
  const withScope = (scope: Scope) => ({
    ...parts,
    authenticate: (exchange: Exchange) => authenticate(exchange, scope),
  });
  return [
    ticketsRoute(withScope('tickets')),
    disconnectRoute(withScope('disconnect')),
    streamsRoute(withScope('streams')),
    ...topicRoutes(withScope('topics')),
  ];
}
